# SPDX-License-Identifier: GPL-2.0
# Plain text as mdoc; for the other awk programs here.

# Safe as a whole line, or as a part of one.
function roff(text)
{
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	gsub(/'/, "\\(aq", text)
	sub(/^\./, "\\\\\\&.", text)
	return text
}

# A text line of a paragraph: each sentence begins a line.
function sentences(text,    rest)
{
	text = roff(text)
	while (match(text, /[.?] +([A-Z]|\\\(aq)/)) {
		rest = substr(text, RSTART + 1)
		sub(/^ +/, "", rest)
		text = substr(text, 1, RSTART) "\n" rest
	}
	return text
}

# A piece of a command line: options and words as they are typed are bold, what is to be put in is CAPITALS.
function usage(text,    done)
{
	text = roff(text)
	while (match(text, /(\\-)+[a-z]([a-z]|\\-)*|[A-Z]+|[a-z]([a-z0-9.]|\\-)*/)) {
		done = done substr(text, 1, RSTART - 1) \
			"\\f" (substr(text, RSTART, 1) ~ /[A-Z]/ ? "I" : "B\\%") substr(text, RSTART, RLENGTH) "\\fR"
		text = substr(text, RSTART + RLENGTH)
	}
	return done text
}

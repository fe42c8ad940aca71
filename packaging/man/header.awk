# SPDX-License-Identifier: GPL-2.0
# The module's header as mdoc.  part=manual: its first comment, that is
#	text			paragraphs
#	Words			alone: begins a section
#	<tab>text		code; below "Errors" a list
# part=structs: what comes behind it: the kernel-doc of each struct, the struct, the flags, the commands.

function in_list()
{
	if (display != "list")
		display_begin("list", ".Bl -tag -width EOPNOTSUPP -compact")
}

function display_begin(kind, line)
{
	display_end()
	display = kind
	begun = 1
	print line
}

function display_end()
{
	if (display == "list")
		print ".El"
	if (display == "code")
		print ".Ed"
	display = ""
}

function code(line)
{
	if (display != "code")
		display_begin("code", ".Bd -literal -offset 2n")
	print roff(line)
}

function paragraph(line)
{
	if (display != "text") {
		display_end()
		if (begun)
			print ".Pp"
	}
	display = "text"
	begun = 1
	print sentences(line)
}

function section(line)
{
	display_end()
	print ".Ss " line
	display = "text"
}

# --- the manual ---

part == "manual" && /^\/\*$/ { comment = 1; next }
part == "manual" && /^ \*\// { exit }
part == "manual" && comment {
	empty = line == ""
	line = substr($0, 3)
	if (line == "") {
		if (display != "code" || errors)
			display_end()
		blank = display == "code"
	} else if (errors && line ~ /^\t[A-Z]/) {
		in_list()
		sub(/^\t/, "", line)
		match(line, /\t+|$/)
		print ".It Er " substr(line, 1, RSTART - 1)
		if (RLENGTH > 0)
			print sentences(substr(line, RSTART + RLENGTH))
	} else if (line ~ /^\t/) {
		code(blank ? "" : substr(line, 2))
		if (blank)
			code(substr(line, 2))
		blank = 0
	} else {
		sub(/^ /, "", line)
		blank = 0
		if (empty && line ~ /^[A-Z][a-z ]*$/) {
			section(line)
			errors = line == "Errors"
		} else {
			errors = 0
			paragraph(line)
		}
	}
}

part == "manual" { next }

# --- the structs ---

/^_Static_assert/ { exit }
!started { started = /^#define CKPT_IOC_TYPE/; next }
/^\/\*\*$/ { documentation = 1; next }
/^ \*\// { documentation = comment = 0; display_end(); next }
documentation && /^ \* struct / {
	title = substr($0, 4)
	split(title, word, / - /)
	section(roff(word[1]))
	print roff(word[2])
	display_end()
	next
}
documentation && /^ \* @/ {
	in_list()
	match($0, /: /)
	print ".It Fa " roff(substr($0, 5, RSTART - 5))
	print sentences(substr($0, RSTART + 2))
	next
}
documentation { print sentences(substr($0, 4)); next }
/^\/\*$/ { comment = 1; next }
comment { paragraph(substr($0, 4)); next }
/^\/\* .*\*\/$/ { display_end(); paragraph(substr($0, 4, length($0) - 6)); next }
/^struct .* {$/ { structure = 1 }
structure { code($0); structure = !/^};/; next }
/^#define .*\/\* .*\*\/$/ {
	in_list()
	print ".It Dv " $2
	match($0, /\/\* .*\*\//)
	print sentences(substr($0, RSTART + 3, RLENGTH - 6))
	next
}
/^#define / { code($0) }
/^$/ { if (display != "code") display_end() }
END { display_end() }

# SPDX-License-Identifier: GPL-2.0
# What a program says to --help, as mdoc:
#	Usage: …		the first line; more of them are indented
#	text			paragraphs
#	  TERM  text		a list, indented by two columns or more; what goes on with a text, or begins it, is below it

function item_end()
{
	if (term != "")
		print ".It " term (text == "" ? "" : "\n" sentences(text))
	term = text = ""
}

function list_end()
{
	item_end()
	if (column) {
		print ".El"
		gap = 1
	}
	column = 0
}

function begin(kind)
{
	if (kind != state && state == "usage")
		print ".Ed"
	if (kind != "list")
		list_end()
	if (kind == "text" && state != "text")
		print ".Pp"
	state = kind
}

/^Usage: / {
	begin("usage")
	print ".Bd -ragged -offset indent -compact\n" usage(substr($0, 8))
	next
}
state == "usage" && /^ / {
	sub(/^ +/, "")
	print usage($0)
	next
}
/^$/ {
	begin("")
	next
}
/^ / {
	match($0, /^ +/)
	indent = RLENGTH
	line = substr($0, indent + 1)
	if (column && indent == column) {
		text = text (text == "" ? "" : " ") line
		next
	}
	begin("list")
	item_end()
	if (!column)
		print (gap ? ".Pp\n" : "") ".Bl -tag -width Ds -offset indent -compact"
	gap = 0
	if (match(line, /  +/)) {
		column = indent + RSTART + RLENGTH - 1
		text = substr(line, RSTART + RLENGTH)
		line = substr(line, 1, RSTART - 1)
	}
	term = usage(line)
	next
}
{
	begin("text")
	gap = 0
	print sentences($0)
}
END { begin("") }

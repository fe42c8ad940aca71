# SPDX-License-Identifier: GPL-2.0
# What ckptd says to --help-config, as mdoc:
#	text		paragraphs
#	[SECTION]	begins a section
#	KEY = VALUE	a key, with its text below, indented by a tab

function key_end()
{
	if (lines)
		print sentences(lines)
	lines = ""
}

function list_end()
{
	key_end()
	if (list)
		print ".El"
	list = 0
}

/^\[/ {
	list_end()
	print ".Ss " roff($0)
	next
}
/^[a-z_]+ = / {
	key_end()
	if (!list)
		print ".Bl -tag -width Ds"
	list = 1
	print ".It Sy " $1 " No = " roff(substr($0, length($1) + 4))
	next
}
/^$/ {
	key_end()
	paragraph = !list
	next
}
/^\t/ {
	# Each of them begins a line of its own.
	if (/^\t(Default: |Required\.|A reload |A change )/)
		key_end()
	lines = lines (lines == "" ? "" : " ") substr($0, 2)
	next
}
{
	if (paragraph)
		print ".Pp"
	paragraph = 0
	print sentences($0)
}
END { list_end() }

"""Who types what, when, and with which keystrokes.

`sources.open_source` gives users and their messages: real chat (`chat`), made-up people (`personas`, from
the words in `lexicon` and `grammar`, written by `writer` at the hours of `schedule`) or a JSONL file.
`records` is a message and its file form, `keystrokes` the fingers that typed it. `imports` makes such files of what
other programs export.
"""

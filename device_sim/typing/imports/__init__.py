"""One's own typing, out of what other programs export, into a typing log (`kbdfl data import`).

`items` is what every importer yields, `opened` the text of a file (its encoding, gzip, zip), `detect` whose file it is;
`jsonl`, `table`, `leaf`, `folder`, `sms`, `whatsapp`, `telegram` and `mail` read one format each; `dates` and
`jsonstream` serve several of them; `masking` takes addresses and numbers out, and `importing` drives it all.
"""

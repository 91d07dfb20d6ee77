"""Made-up exports of each format, each with broken records, and what must come of them."""

import gzip
import json
import zipfile

LRM, NARROW = "\u200e", "\u202f"

WHATSAPP_IOS = f"""\
[13/03/2024, 21:04:05] Ann, Bob & Co: {LRM}Messages and calls are end-to-end encrypted.
[13/03/2024, 21:04:05] Ann Lee: see you soon
and bring the map

it rains
[13/03/2024, 21:05:00] Bob: no
{LRM}[13/03/2024, 21:06:00] Ann Lee: {LRM}image omitted
[31/02/2024, 21:07:00] Ann Lee: on a day that never was
[13/03/2024, 21:08:00] Ann Lee: mail me at ann@example.org {LRM}<This message was edited>
[14/03/2024, 09:00:00] Ann Lee: 14:30 at the door: fine?
"""

WHATSAPP_ANDROID = f"""\
a line that belongs to nothing
3/13/24, 9:04{NARROW}PM - Messages and calls are end-to-end encrypted.
3/13/24, 9:04{NARROW}PM - Ann Lee: see you soon
and bring the map
3/13/24, 9:05{NARROW}PM - Bob: no
3/13/24, 9:06{NARROW}PM - Ann Lee: <Media omitted>
3/13/24, 9:06{NARROW}PM - Ann Lee: IMG-20240313-WA0001.jpg (file attached)
what a caption
3/14/24, 12:30{NARROW}AM - Ann Lee: This message was deleted
3/14/24, 12:31{NARROW}AM - Ann Lee: half past midnight
3/14/24, 13:31{NARROW}PM - Ann Lee: an hour that never was
"""

SMS = """\
<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>
<!--File Created By a backup app-->
<?xml-stylesheet type="text/xsl" href="sms.xsl"?>
<smses count="8">
  <sms protocol="0" address="+15550100" date="1710363845000" type="2" subject="null" body="see you &#55357;&#56832;&#10;soon" read="1" />
  <sms protocol="0" address="+15550100" date="1710363846000" type="1" body="ok" read="1" />
  <sms protocol="0" address="+15550100" date="1710363847000" type="2" body="broken " quote" read="1" />
  <sms protocol="0" address="+15550100" date="1710363848000" type="2" read="1" />
  <sms protocol="0" address="+15550100" date="noon" type="2" body="at noon" />
  <sms protocol="0" address="+15550100" date="1710363849000" type="3" body="unsent" />
  <mms date="1710363850000" msg_box="2" address="+15550100">
    <parts>
      <part seq="0" ct="image/jpeg" text="null" data="aGVsbG8=" />
      <part seq="1" ct="text/plain" text="look at &lt;this&gt;" />
    </parts>
    <addrs><addr address="+15550100" type="151" /></addrs>
  </mms>
  <sms protocol="0" address="+15550100" date="1710363851000" type="2" body="last one" />
</smses>
"""  # noqa: E501

TELEGRAM_ALL = {
    "about": "Here is the data you requested.",
    "personal_information": {"user_id": 77, "first_name": "Ann"},
    "contacts": {"list": [{"first_name": "Bob"}]},
    "chats": {
        "about": "all of them",
        "list": [
            {
                "name": "Bob",
                "type": "personal_chat",
                "id": 1,
                "messages": [
                    {"id": 1, "type": "service", "actor": "Ann", "action": "phone_call"},
                    {"id": 2, "type": "message", "date": "2024-03-13T21:04:05", "date_unixtime": "1710363845",
                     "from": "Ann", "from_id": "user77", "text": "see you soon"},
                    {"id": 3, "type": "message", "date_unixtime": "1710363846", "from": "Bob",
                     "from_id": "user5", "text": "no"},
                    {"id": 4, "type": "message", "date_unixtime": "1710363847", "from": "Ann",
                     "from_id": "user77", "text": ["read ", {"type": "link", "text": "page.example/x"}, " first"]},
                    {"id": 5, "type": "message", "date_unixtime": "1710363848", "from": "Ann",
                     "from_id": "user77", "text": 17},
                    {"id": 6, "type": "message", "date_unixtime": "soon", "from": "Ann",
                     "from_id": "user77", "text": "when"},
                    {"id": 7, "type": "message", "date_unixtime": "1710363849", "from": "Ann",
                     "from_id": "user77", "text": "", "photo": "a.jpg"},
                    {"id": 8, "type": "message", "date_unixtime": "1710363850", "from": "Ann",
                     "from_id": "user77", "forwarded_from": "Bob", "text": "not mine"},
                    "no object",
                ],
            },
            {
                "type": "saved_messages",
                "id": 2,
                "messages": [
                    {"id": 9, "type": "message", "date_unixtime": "1710363851", "from": "Ann",
                     "from_id": "user77", "text": "buy milk"},
                ],
            },
        ],
    },
}  # fmt: skip

MBOX = b"""\
From ann@example.org Wed Mar 13 21:04:05 2024
From: Ann Lee <ann@example.org>
To: bob@example.org
Date: Wed, 13 Mar 2024 21:04:05 +0000
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

See you at the caf\xe9.
>From here it is not far.

On Tue, 12 Mar 2024 at 20:00, Bob <bob@example.org> wrote:
> where shall we meet?

-- 
Ann Lee, +1 555 010 0199

From bob@example.org Wed Mar 13 21:05:05 2024
From: bob@example.org
Date: Wed, 13 Mar 2024 21:05:05 +0000

fine

From nobody Wed Mar 13 21:06:05 2024
Subject: this one has no sender

who was it?

From ann@example.org Wed Mar 13 21:07:05 2024
From: =?utf-8?q?Ann_L=C3=A9e?= <ann@example.org>
Date: Wed, 13 Mar 2024 21:07:05 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="x"

--x
Content-Type: text/html; charset=utf-8

<html><head><title>t</title></head><body><p>It rains, <b>bring</b> a coat</p>
<div class="gmail_quote">Bob wrote: <blockquote>no</blockquote></div></body></html>
--x
Content-Type: text/plain
Content-Disposition: attachment; filename=a.txt

attached
--x--
"""

CSV = """\
author,body,sent_at
ann,"see you, soon",2024-03-13T21:04:05Z
bob,no,1710363846
ann,"two
lines",1710363847000
ann,one cell too many,1710363848,x
ann,at noon,noon
ann,"open quote"x,1710363849
ann,,1710363850
ann,last one,
"""

JSONL = """\
{"user": "ann", "text": "see you soon", "time": 1710363845, "app": "chat", "keys": [["s", 0]]}
{"user": "ann", "text": 17}

{"user": "ann"
{"user": "bob", "text": "no", "time": "2024-03-13T21:04:06Z"}
[1, 2]
{"user": "ann", "text": "last \\ud83d\\ude00 one", "time": null}
{"text": "nobody's"}
{"user": "ann", "text": "  "}
"""

LEAF = {
    "users": ["ann", "bob", "cat", "dan"],
    "num_samples": [3, 1, 1, 2],
    "user_data": {
        "ann": {"x": ["see you soon", 17, "last one"], "y": [{"time": 1710363845}, {"time": 1}, {"time": None}]},
        "bob": {"x": [[["<BOS>", "so", "it"], ["is", "<EOS>", "<PAD>"]]], "y": [{"target_tokens": [["so"]]}]},
        "cat": {"x": [["1467810369", "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "cat", "no way", "0"]], "y": [0]},
        "dan": {"x": ["to be or", "o be or ", " be or n"], "y": [" ", "n", "o"]},
        "eve": "nothing",
    },
}  # fmt: skip


def write_all(folder):
    """All of them, as (format, path, what names oneself)."""
    made = {
        "jsonl": ("log.jsonl", JSONL.encode(), ()),
        "csv": ("table.csv", CSV.encode(), ()),
        "leaf": ("leaf.json", json.dumps(LEAF, indent=1).encode(), ()),
        "sms": ("sms.xml", SMS.encode(), ()),
        "whatsapp": ("chat.txt", WHATSAPP_IOS.encode(), ("Ann Lee",)),
        "telegram": ("result.json", json.dumps(TELEGRAM_ALL, indent=1).encode(), ()),
        "mbox": ("mails", MBOX, ("ann@example.org",)),
    }
    for format, (name, content, me) in made.items():
        (folder / name).write_bytes(content)
        yield format, folder / name, me


def zipped(path, **members):
    """A zip of texts."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_txt", ".txt"), content)
    return path


def gzipped(path, content):
    """A gzip file."""
    path.write_bytes(gzip.compress(content))
    return path

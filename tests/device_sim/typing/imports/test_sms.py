"""SMS backups: the dialects of several apps, records cut out of any text, and no document type."""

import pytest

from kbdfl.device_sim.typing.imports import sms
from kbdfl.device_sim.typing.imports.items import Malformed, Options, Skipped
from kbdfl.device_sim.typing.imports.opened import Opened
from kbdfl.device_sim.typing.imports.sms import read_sms
from kbdfl.device_sim.typing.records import Message
from kbdfl.errors import DataError

EXPECTED = [Message("me", "see you & co", 1_710_363_845.0, "chat"), Skipped("received")]
DIALECTS = {
    "SMS Backup & Restore": '<smses count="2"><sms type="2" date="1710363845000" body="see you &amp; co"/>\n'
    '<sms type="1" date="1710363845000" body="no" /></smses>',
    "Super Backup": '<allsms count="2">\n\t<sms address="1" time="Mar 13" date="1710363845000" type="2"'
    ' body="see you &amp; co" read="1" service_center="" name="" />\n<sms type="1" date="1" body="no"/></allsms>',
    "GO SMS Pro": "<GoSms><SMS><_id>1</_id><date>1710363845000</date><type>2</type><body>see you &amp; co</body></SMS>"
    "<SMS><date>1710363845000</date><type>1</type><body>no</body></SMS></GoSms>",
    "Titanium Backup": '<threads count="1"><thread address="1"><sms msgBox="sent" date="2024-03-13T21:04:05.000Z">'
    'see you &amp; co</sms></thread><thread address="2"><sms msgBox="inbox" date="x">no</sms></thread></threads>',
}


@pytest.fixture
def read(tmp_path):
    def items(text):
        path = tmp_path / "sms.xml"
        path.write_text(text, "utf-8")
        return list(read_sms(Opened(path), Options()))

    return items


@pytest.mark.parametrize("app", DIALECTS)
def test_every_apps_own_way_gives_the_same(app, read):
    assert read("<?xml version='1.0' encoding='UTF-8'?>\n" + DIALECTS[app]) == EXPECTED


@pytest.mark.parametrize("block", [1, 7, 64])
def test_records_do_not_depend_on_the_blocks_that_they_come_in(block, read, monkeypatch):
    whole = {app: read(text) for app, text in DIALECTS.items()}
    monkeypatch.setattr(Opened, "chunks", lambda self: (lambda t: (t[i : i + block] for i in range(0, len(t), block)))(
        self.path.read_text("utf-8")))  # fmt: skip
    assert {app: read(text) for app, text in DIALECTS.items()} == whole


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    "before", [BOMB, "<?xml version='1.0'?>\n" + BOMB, " " * 200_000 + BOMB, BOMB.lower()]
)
def test_a_document_type_is_refused(before, read):
    with pytest.raises(DataError, match="declares a document type"):
        read(before + '<smses><sms type="2" body="&c;"/></smses>')


def test_an_entity_or_a_document_type_amid_records_is_a_broken_record(read):
    text = f'<smses><sms type="2" body="&c;"/>\n{BOMB}\n<sms type="2" body="fine"/></smses>'
    assert read(text) == [Malformed(1, "not XML"), Message("me", "fine", None, "chat")]


def test_halves_of_characters_are_joined_and_what_xml_cannot_hold_is_dropped(read):
    text = '<smses><sms type="2" body="&#55357;&#56832; &#xD83D;&#xDE00; &#0;a&#11;\x0b &#55357; b&#9786;"/></smses>'
    assert read(text)[0].text == "\U0001f600 \U0001f600 a \ufffd b\u263a"


def test_a_record_too_long_to_keep_is_named_and_the_next_is_read(read, monkeypatch):
    monkeypatch.setattr(sms, "LONGEST_RECORD", 100_000)
    text = (
        '<smses>\n<sms type="2" body="one"/>\n<sms type="2" body="'
        + "x" * 400_000
        + '\n"/>\n<sms type="2" body="two"/>'
    )
    assert [getattr(item, "text", item) for item in read(text)] == [
        "one",
        Malformed(3, "a record of millions of characters"),
        "two",
    ]


@pytest.mark.parametrize(
    ("record", "item"),
    [
        ('<sms type="5" body="a"/>', Skipped("not sent")),
        ('<sms body="a"/>', Malformed(1, "it does not say whether it was sent")),
        ('<sms type="2" body="null"/>', Skipped("no text")),
        ('<mms msg_box="2" date="1710363845"><parts/></mms>', Skipped("no text")),
        ('<mms msg_box="1"><parts><part ct="text/plain" text="a"/></parts></mms>', Skipped("received")),
        ('<sms type="2" body="a < b"/>', Malformed(1, "not XML")),
        ('<sms type="2" body="a"', Malformed(1, "not XML")),
    ],
)
def test_what_is_not_kept_says_why(record, item, read):
    assert read(f"<smses>{record}</smses>") == [item]

"""How much memory and time `kbdfl data import` takes for a large file: `python benchmarks/import_stream.py --help`.

Writes a made-up export of the stated size in each format, imports it in a process of its own, and says what that took.
Every thousandth record is broken. The import fails if more than `--most-mb` of memory were resident.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "see",
    "you",
    "soon",
    "at",
    "the",
    "harbour",
    "when",
    "it",
    "rains",
    "again",
    "and",
    "bring",
    "a",
    "map",
)
FORMATS = ("jsonl", "csv", "leaf", "sms", "whatsapp", "telegram", "mbox")
ME = {"whatsapp": ("--me", "Ann Lee"), "mbox": ("--me", "ann@example.org")}
BROKEN = 1000  # every so many records
CYCLE = 5000  # records after which they repeat
CHILD = """
import sys
import time
from kbdfl.cli.main import main
try:
    main(sys.argv[1:])
finally:
    try:  # the high-water mark of this program alone; ru_maxrss begins with its parent's
        with open("/proc/self/status") as status:
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    print(f"peak_kib {kib}\\ncpu_s {time.process_time()}", file=sys.stderr)
"""


def text(number: int) -> str:
    """A message that differs from its neighbours; every seventh holds an address or a number."""
    words = [WORDS[(number * step) % len(WORDS)] for step in range(1, 4 + number % 9)]
    return " ".join(words) + ("", "", "", " x@example.org", "", "", " 0155501234")[number % 7]


def record(format: str, number: int) -> str:
    """One record, sent by oneself two times in three; every `BROKEN`th is malformed."""
    mine, broken, said = number % 3 != 0, number % BROKEN == BROKEN - 1, text(number)
    time_s = 1_600_000_000 + number
    stamp = time.gmtime(time_s)
    if format == "jsonl":
        line = json.dumps({"user": f"user{number % 500:x}", "text": said, "time": time_s})
        return (line[:-1] if broken else line) + "\n"
    if format == "csv":
        return f'u{number % 500:x},"{said}",{"noon" if broken else time_s}\n'
    if format == "leaf":
        return json.dumps(None if broken else said)
    if format == "sms":
        end = "" if broken else '"'
        return f'  <sms protocol="0" date="{time_s}000" type="{2 if mine else 1}" body="{said}{end} read="1" />\n'
    if format == "whatsapp":
        day = "31/02/2021" if broken else time.strftime("%d/%m/%Y", stamp)
        name = "Ann Lee" if mine or broken else "Bob"
        return f"[{day}, {time.strftime('%H:%M:%S', stamp)}] {name}: {said}\n"
    if format == "telegram":
        fields = {
            "id": number,
            "type": "message",
            "date_unixtime": str(time_s),
            "from_id": f"user{7 if mine else 5}",
        }
        fields["text"] = 0 if broken and mine else said
        if broken and not mine:
            fields["type"] = "unheard of"
        return "\n".join("    " + line for line in json.dumps(fields, indent=1).split("\n"))
    sender = "" if broken else f"From: {'ann' if mine else 'bob'}@example.org\n"
    date = time.strftime("%a %b %d %H:%M:%S %Y", stamp)
    return f"From someone {date}\n{sender}Date: {date} +0000\nSubject: s\n\n{said}\n\n> quoted\n\n"


FRAME = {
    "csv": ("user,text,time\n", "", ""),
    "leaf": ('{"users": ["ann"], "user_data": {"ann": {"x": [', ",\n", "]}}}"),
    "sms": ("<?xml version='1.0' encoding='UTF-8' ?>\n<smses>\n", "", "</smses>\n"),
    "telegram": (
        '{\n "personal_information": {"user_id": 7},\n "chats": {"list": [\n'
        '  {"type": "personal_chat", "messages": [\n',
        ",\n",
        "\n  ]}\n ]}\n}\n",
    ),
}


def write_export(path: Path, format: str, size: int) -> int:
    """Write an export of about `size` bytes, whole records, and return how many records it holds."""
    before, between, after = FRAME.get(format, ("", "", ""))
    cycle = [record(format, number) for number in range(CYCLE)]
    again, number = between.join(cycle) + between, 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        written = file.write(before)
        while written + len(again) < size:
            written, number = written + file.write(again), number + CYCLE
        file.write(between.join(cycle) + after)
    return number + CYCLE


def run_import(path: Path, out: Path, format: str) -> dict:
    """What the import printed, with `peak_mb` (MiB resident at most), `cpu_s` and `seconds`."""
    started = time.monotonic()
    command = ("data", "import", str(path), "--out", str(out), *ME.get(format, ()), "--json")
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *command], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    figures = dict(
        line.split() for line in ended.stderr.splitlines() if line.startswith(("peak_kib ", "cpu_s "))
    )
    measured = {"peak_mb": int(figures["peak_kib"]) / 1024, "cpu_s": float(figures["cpu_s"])}
    return {**json.loads(ended.stdout), **measured, "seconds": time.monotonic() - started}


def main() -> None:
    """Measure each format and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=1024, help="MiB of each export")
    parser.add_argument("--most-mb", type=int, default=200, help="MiB that may be resident")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--folder", type=Path, help="where the files go for as long as it takes")
    asked = parser.parse_args()
    failed = False
    for format in asked.formats.split(","):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            path, out = Path(folder) / "export", Path(folder) / "log.jsonl"
            records = write_export(path, format, asked.mb << 20)
            result = run_import(path, out, format)
            found = result["messages"] + result["malformed"] + sum(result["skipped"].values())
            # reading another format, or losing records, would be quick and small as well
            good = result["format"] == format and found == records and result["peak_mb"] <= asked.most_mb
            failed |= not good
            print(
                f"{format:>9}  {path.stat().st_size >> 20:,} MiB  {records:,} records  {result['messages']:,} kept  "
                f"{result['malformed']:,} malformed  peak {result['peak_mb']:.0f} MiB  {result['seconds']:.0f} s, "
                f"{result['cpu_s']:.0f} of them at work"
                f"{'' if good else '  FAILED'}",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""Files that nobody means to write: seeded changes of a valid one, blind or aware of its format."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

Change = Callable[[random.Random, bytes], bytes]

HUGE = "9" * 5000
_MARK = "@@huge@@"
_DEEP = 200
CONTROLS = b"\x00\x07\x1b[31m\x7f\x85\r\n\t\xff\xfe\xef\xbb\xbf\xed\xa0\x80\xe2\x80\xae"
TOKENS = (b'"\\ud800"', b'"\\u0000"', b"NaN", b"-Infinity", b"1e999", HUGE.encode(), b"null", b"{")
YAML_TOKENS = (
    *(b"&a [*a]", b"*a", b"!!python/object/apply:os.system [ls]", b"!!binary x", b"!!float x"),
    *(b"!!timestamp x", b"2024-99-99", b"- ? [a]: b", b"<<: {a: 1}", b"? {a: b}\n: c", b"0o777"),
    *(b".nan", b".inf", b"0x" + b"f" * 6000, b"1:" * 3000 + b"1", b"%YAML 9.9", b"---\n---"),
)


def nasty(dice: random.Random) -> Any:
    """A value that does not belong where it is put."""
    return dice.choice(NASTY)()


NASTY: tuple[Callable[[], Any], ...] = (
    *(lambda: None, lambda: True, lambda: False, lambda: 0, lambda: -1, lambda: 1.5),
    *(lambda: 1 << 40, lambda: 1 << 70, lambda: 1e308, lambda: float("nan"), lambda: -0.0),
    *(lambda: float("inf"), lambda: _MARK, lambda: "", lambda: "\0", lambda: "\ud800"),
    *(lambda: "x" * 300, lambda: "../../etc/passwd", lambda: "/dev/zero", lambda: "."),
    *(lambda: [], dict, lambda: [[]], lambda: {"a": {}}, lambda: ["x"] * 3000),
    *(lambda: {"__class__": "x", "name": "linear"}, lambda: "\x1b]0;hi\a[red]", lambda: "1e400"),
    *(lambda: {"weight": 1}, lambda: "on", lambda: "a/b/c", lambda: "~nobody/x", lambda: "../x"),
    lambda: _nested(list),
    lambda: _nested(dict),
)


def _nested(kind: type) -> Any:
    value: Any = 1
    for _ in range(_DEEP):
        value = [value] if kind is list else {"a": value}
    return value


def change_value(dice: random.Random, value: Any) -> Any:
    """The same plain value with one place in it changed."""
    places: list[tuple[Any, Any]] = []

    def walk(one: Any) -> None:
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], (dict, list)):
                walk(one[key])

    if not isinstance(value, (dict, list)) or dice.random() < 0.02:
        return nasty(dice)
    walk(value)
    if not places:
        return nasty(dice)
    shallow = [p for p in places if p[0] is value]
    holder, key = dice.choice(shallow if dice.random() < 0.3 else places)
    other, theirs = dice.choice(places)
    what = dice.random()
    if what < 0.55:
        holder[key] = nasty(dice)
    elif what < 0.7:
        del holder[key]
    elif what < 0.8:
        holder[key] = json.loads(json.dumps(other[theirs]))
    elif isinstance(holder, dict):
        name = dice.choice([str(nasty(dice))[:400], "unknown", f"{key}x"])
        holder[name] = holder.pop(key) if what < 0.9 else nasty(dice)
    else:
        holder.append(nasty(dice))
    return value


def _dumped(value: Any) -> bytes:
    return json.dumps(value).replace(f'"{_MARK}"', HUGE).encode()


def of_json(dice: random.Random, data: bytes) -> bytes:
    """JSON with a value, a key or a pair changed."""
    if dice.random() < 0.3:
        return dice.choice((of_bytes, of_tokens, _key_twice))(dice, data)
    return _dumped(change_value(dice, json.loads(data)))


def _key_twice(dice: random.Random, data: bytes) -> bytes:
    at = data.find(b"{")
    return data[: at + 1] + b'"format": 1, "format": 2, "a": 1, "a": 2, ' + data[at + 1 :]


def of_yaml(dice: random.Random, data: bytes) -> bytes:
    """YAML with a value changed, or with tokens of YAML that are not for data."""
    what = dice.random()
    if what < 0.5:
        return _dumped(change_value(dice, yaml.safe_load(data)))
    if what < 0.75:
        return _token(dice, data, YAML_TOKENS)
    return dice.choice((of_bytes, of_tokens))(dice, data)


def of_lines(dice: random.Random, data: bytes) -> bytes:
    """JSON lines with one of them changed, doubled, dropped or cut."""
    lines = data.splitlines(keepends=True)
    number = dice.randrange(len(lines))
    what = dice.random()
    if what < 0.7:
        lines[number] = of_json(dice, lines[number].rstrip(b"\n")) + b"\n"
    elif what < 0.8:
        lines.insert(number, lines[number])
    elif what < 0.9:
        lines[-1] = lines[-1][: dice.randrange(len(lines[-1]))]
    else:
        return of_bytes(dice, data)
    return b"".join(lines)


def of_csv(dice: random.Random, data: bytes) -> bytes:
    """A CSV with a cell changed, or its quoting broken."""
    if dice.random() < 0.3:
        return dice.choice((of_bytes, of_tokens))(dice, data)
    if dice.random() < 0.3:
        return _token(dice, data, (b'"', b",", b"\r", b"\n", b'""', b"\0", b"x" * 200_000, b";"))
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    row = dice.choice(rows)
    if dice.random() < 0.7 and row:
        row[dice.randrange(len(row))] = str(nasty(dice))
    elif row and dice.random() < 0.5:
        del row[dice.randrange(len(row))]
    else:
        rows.insert(dice.randrange(len(rows)), list(dice.choice(rows)))
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def of_text(dice: random.Random, data: bytes) -> bytes:
    """Any text."""
    return dice.choice((of_bytes, of_tokens))(dice, data)


def of_safetensors(dice: random.Random, data: bytes) -> bytes:
    """A header with a value changed, or one that lies about its length."""
    length = struct.unpack("<Q", data[:8])[0]
    header, payload = data[8 : 8 + length], data[8 + length :]
    if dice.random() < 0.3:
        return of_bytes(dice, data)
    if dice.random() < 0.2:
        claimed = dice.choice([0, 1, length - 1, length + 1, 99_999_999, 1 << 40, (1 << 64) - 1])
        return struct.pack("<Q", claimed) + header + payload
    header = of_json(dice, header)
    return struct.pack("<Q", len(header)) + header + payload


def of_gguf(dice: random.Random, data: bytes) -> bytes:
    """A header in which numbers of four or eight bytes lie, or bytes of it changed."""
    if dice.random() < 0.4:
        return of_bytes(dice, data)
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        form = dice.choice("IQ")
        most = (1 << 8 * struct.calcsize(form)) - 1
        value = dice.choice((0, 1, 2, 7, 8, 9, 33, 255, 1 << 20, 1 << 31, most >> 1, most))
        at = dice.randrange(max(1, min(len(changed), 3000) - 8))
        struct.pack_into(f"<{form}", changed, at, value)
    return bytes(changed)


def of_torch(dice: random.Random, data: bytes) -> bytes:
    """A .bin with bytes of its archive, or of the pickle in it, changed."""
    if dice.random() < 0.4:
        return of_bytes(dice, data)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = of_bytes(dice, content)
            new.writestr(name, content)
    return out.getvalue()


def of_bytes(dice: random.Random, data: bytes) -> bytes:
    """Bits flipped, pieces cut, doubled, or filled with control bytes."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at, end = sorted((dice.randrange(len(changed) + 1), dice.randrange(len(changed) + 1)))
        end = min(end, at + 64)
        what = dice.randrange(6)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif what == 1:
            del changed[at:]
        elif what == 2:
            del changed[at:end]
        elif what == 3:
            changed[at:at] = changed[at:end]
        elif what == 4:
            first = dice.randrange(len(CONTROLS))
            changed[at:at] = CONTROLS[first : first + dice.randrange(1, 6)]
        else:
            changed[at:at] = bytes([dice.randrange(256)])
    return bytes(changed)


def of_tokens(dice: random.Random, data: bytes) -> bytes:
    """A token that is none of this format put somewhere."""
    deep = b"[" * _DEEP, b"{" * _DEEP, b'{"a":' * 100_000
    return _token(dice, data, (*TOKENS, *deep))


def _token(dice: random.Random, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    at = dice.randrange(len(data) + 1)
    cut = dice.choice((0, 0, 1, 5))
    return data[:at] + dice.choice(tokens) + data[at + cut :]

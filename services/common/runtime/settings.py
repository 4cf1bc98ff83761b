"""Settings of a service: a frozen dataclass, filled from a TOML file and then from the environment.

Every field is declared with `option(default, doc, unit=...)`: from that the example files in deploy/config are written.
An unknown key, in the file or the environment, is an error: a misspelt setting must not be ignored in silence.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

S = TypeVar("S")


class SettingsError(Exception):
    """A setting that cannot be used; the text names it, its value and the remedy."""


def option(default: Any, doc: str, *, unit: str = "", secret: bool = False) -> Any:
    """A field of a settings dataclass. `unit` is shown to people ("s", "MiB"); a `secret` is never printed."""
    return dataclasses.field(default=default, metadata={"doc": doc, "unit": unit, "secret": secret})


def load_settings(settings_type: type[S], service: str, *, file: Path | None, environ: Mapping[str, str]) -> S:
    """Defaults, then `file`, then the variables `MOLN_<SERVICE>_<FIELD>`. A SettingsError names all faults."""
    kinds = _kinds(settings_type)
    values: dict[str, object] = {}
    faults: list[str] = []
    for origin, name, raw in [*_from_file(file, faults), *_from_environment(service, environ)]:
        if name not in kinds:
            faults.append(f"{origin}: unknown setting{_nearest(name, kinds)}")
            continue
        try:
            values[name] = _convert(kinds[name], raw)
        except ValueError as err:
            faults.append(f"{origin}: {err}")
    if faults:
        raise SettingsError("; ".join(faults))
    return settings_type(**values)


def environment_name(service: str, field: str) -> str:
    """The variable that sets a field."""
    return f"MOLN_{service}_{field}".upper()


def render_settings(settings_type: type[Any], service: str) -> str:
    """A TOML file with every option, its meaning, unit, variable and default, all commented out."""
    lines = [f"# Settings of moln's {service}. Every option is here with its default; remove the # to change one."]
    for field in dataclasses.fields(settings_type):
        unit = f" In {field.metadata['unit']}." if field.metadata["unit"] else ""
        lines += ["", f"# {field.metadata['doc']}{unit}", f"# Variable: {environment_name(service, field.name)}"]
        lines.append(f"#{field.name} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"


def _kinds(settings_type: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(settings_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings_type)}


def _from_file(file: Path | None, faults: list[str]) -> list[tuple[str, str, object]]:
    if file is None:
        return []
    try:
        document = tomllib.loads(file.read_text())
    except OSError as err:
        faults.append(f"{file}: cannot be read: {err.strerror or err}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        faults.append(f"{file}: not TOML: {err}")
    else:
        return [(f"{file}: {name}", name, value) for name, value in document.items()]
    return []


def _from_environment(service: str, environ: Mapping[str, str]) -> list[tuple[str, str, object]]:
    prefix = environment_name(service, "")
    names = sorted(name for name in environ if name.startswith(prefix) and name != f"{prefix}CONFIG")
    return [(name, name.removeprefix(prefix).lower(), environ[name]) for name in names]


def _nearest(name: str, known: Mapping[str, object]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f"; there are: {', '.join(sorted(known))}"


def _convert(kind: Any, raw: object) -> object:
    """A value of the field's type from what TOML or the environment gave; ValueError says what was expected."""
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        inner = next(part for part in get_args(kind) if part is not types.NoneType)
        return None if raw == "" else _convert(inner, raw)
    if origin is Literal:
        return _one_of(get_args(kind), raw)
    if origin is tuple:
        parts = [part.strip() for part in raw.split(",") if part.strip()] if isinstance(raw, str) else raw
        if not isinstance(parts, list):
            raise ValueError(f"{raw!r} is not a list")
        return tuple(_convert(get_args(kind)[0], part) for part in parts)
    return _scalar(kind, raw)


def _one_of(choices: tuple[object, ...], raw: object) -> object:
    if raw not in choices:
        raise ValueError(f"{raw!r} is not one of {', '.join(str(choice) for choice in choices)}")
    return raw


_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _scalar(kind: Any, raw: object) -> object:
    if kind is bool:
        found = raw if isinstance(raw, bool) else _BOOLS.get(str(raw).lower())
        if found is None:
            raise ValueError(f"{raw!r} is not true or false")
        return found
    if kind in (int, float) and not isinstance(raw, bool):
        try:
            return cast("type[int] | type[float]", kind)(cast("str", raw))
        except (TypeError, ValueError):
            raise ValueError(f"{raw!r} is not a {'whole ' if kind is int else ''}number") from None
    if kind is Path and isinstance(raw, str):
        return Path(raw).expanduser()
    if kind is str and isinstance(raw, str):
        return raw
    raise ValueError(f"{raw!r} is not a {getattr(kind, '__name__', kind)}")


def _toml(value: object) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

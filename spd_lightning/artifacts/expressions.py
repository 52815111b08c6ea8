"""``${oc.env:NAME}`` in options: a run takes the variable's value, and what is written keeps the expression.

So a secret, or a folder that differs between machines, stands in no file of a run. Whatever an option takes from the
environment counts, also by way of another option. What the program itself needs there is written by value: the date
of chat templates, the commit of a hub model, and, in the student, its key, checkpoints and logs, the name of the base
and the numbers of the section ``model``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from spd_lightning.errors import UserError

Place = tuple[str | int, ...]
MARK = ", sha256 "  # between an expression and the hash of its value
ROUNDS = 200_000  # of the hash: 0.1 s
BY_VALUE = (("template_date",), ("model_revision",))
_asked: list[str] = []  # variables that were asked for


def _env(name: str, *default: Any) -> Any:
    """OmegaConf's ``oc.env``, which also says that it was asked."""
    from omegaconf.resolvers import oc

    _asked.append(name)
    return oc.env(name, *default)


def expressions(config: Mapping[str, Any]) -> dict[Place, str]:
    """Where a configuration takes a value from the environment, and the expression that stands there.

    What stands for nothing is left out: the parser says so.
    """
    if "${" not in str(config):
        return {}
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_resolver("oc.env", _env, replace=True)
    whole = OmegaConf.create(_plain(config))
    found: dict[Place, str] = {}
    for place, text in _texts(config, ()):
        if "${" not in text:
            continue
        _asked.clear()
        node: Any = whole
        try:
            for part in place:
                node = node[part]  # resolves what is asked for
        except OmegaConfBaseException:
            continue
        if _asked:
            found[place] = text
    return found


def with_expressions(config: Mapping[str, Any], found: Mapping[Place, str]) -> dict[str, Any]:
    """A copy of options in which expressions stand where they were given."""

    def copy(value: Any, place: Place) -> Any:
        if place in found and place not in BY_VALUE:
            return found[place]
        if isinstance(value, Mapping):
            return {name: copy(part, (*place, name)) for name, part in value.items()}
        return [copy(part, (*place, i)) for i, part in enumerate(value)] if isinstance(value, list) else value

    return {name: copy(part, (name,)) for name, part in config.items()}


def digests(config: Mapping[str, Any], found: Mapping[Place, str]) -> dict[str, str]:
    """Hashes of the values that expressions stand for, by dotted name: ``environment.json`` keeps them.

    Args:
        config: The options by value.
        found: Where expressions stand.
    """
    return {_dotted(place): digest(_at(config, place)) for place in found if place not in BY_VALUE}


def marked(config: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """A copy of saved options to be compared: an expression, and the hash of the value that it stood for.

    Args:
        config: With expressions, as ``config.yaml`` has them.
        hashes: See `digests`; what was changed by hand to be no mapping counts as none.
    """
    hashes = hashes if isinstance(hashes, Mapping) else {}
    marks = {
        place: f"{text}{MARK}{hashes[_dotted(place)]}" for place, text in _texts(config, ()) if _dotted(place) in hashes
    }
    return with_expressions(config, marks)


def value_of(config: Mapping[str, Any], *place: str) -> Any:
    """An option of a run's ``config.yaml``, with what its expression stands for now; None where it is not there.

    Text that was taken from the environment is read as YAML: a list, a number.

    Raises:
        UserError: If the variable is not set.
    """
    found = _at(config, place)
    if "${" not in str(found):
        return found
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node: Any = OmegaConf.create(_plain(config))
    try:
        for part in place:
            node = node[part]
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        return yaml.safe_load(plain) if isinstance(plain, str) else plain
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(
            f"{'.'.join(place)} of a run is {found}, which cannot be read ({str(error).splitlines()[0]}). Set that "
            "environment variable as it was."
        ) from error


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options as OmegaConf takes them: dates, say, as text."""
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    return plain


def _at(config: Mapping[str, Any], place: tuple[str | int, ...]) -> Any:
    node: Any = config
    for part in place:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def digest(value: Any) -> str:
    """A hash of an option's value, 16 characters; a slow one, so that no short secret is found by trying words."""
    return _slow_digest(json.dumps(value, sort_keys=True, default=str))


@lru_cache
def _slow_digest(text: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"spd_lightning", ROUNDS, 8).hex()


def same(one: Any, two: Any) -> bool:
    """Whether two options are equal; what is marked (`marked`) by the value that it stands for, whatever its text."""
    hashes = [value.rpartition(MARK)[2] if isinstance(value, str) and MARK in value else None for value in (one, two)]
    if any(hashes):
        first, second = (known or digest(value) for known, value in zip(hashes, (one, two)))
        return first == second
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(same(value, two[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, (Mapping, list)):
        for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(part, (*place, name))

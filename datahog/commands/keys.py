"""`keys`: makes, lists and revokes the API keys of those who may call."""

import argparse
import re
import sys

from persistence.api_keys import ApiKeys
from persistence.errors import NotFound, Unavailable
from persistence.records.tenants import DEFAULT_TENANT, PATTERN
from specs.operations import scopes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    create = actions.add_parser("create", help="make a key and print it: it is not kept, so it cannot be shown again")
    create.add_argument("--name", required=True, help="whose it is, or what it is for")
    create.add_argument(
        "--scope", required=True, action="append", choices=scopes(), help="what it opens; give it once for each scope"
    )
    create.add_argument(
        "--tenant", type=_tenant, default=DEFAULT_TENANT, help="whose requests it opens, and no others [%(default)s]"
    )
    create.add_argument(
        "--unlimited",
        action="store_true",
        help="for DATAHOG_AGGREGATOR_KEY, which calls for everybody: no rate limit, no quota of open requests",
    )
    actions.add_parser("list", help="show all keys: id, scopes, tenant, limits, when made, when revoked, name")
    revoke = actions.add_parser("revoke", help="let a key open nothing any more, within five seconds")
    revoke.add_argument("id", help="the id that `list` shows: the part of the key between dh_ and the next _")


def run(keys: ApiKeys, arguments: argparse.Namespace) -> int:
    """Carry it out; 1 if there is no such key, or no DynamoDB."""
    try:
        match arguments.action:
            case "create":
                print(
                    keys.create(arguments.name, arguments.scope, tenant=arguments.tenant, unlimited=arguments.unlimited)
                )
            case "list":
                _list(keys)
            case "revoke":
                keys.revoke(arguments.id)
    except (NotFound, Unavailable) as error:
        print(f"datahog keys: {error}", file=sys.stderr)
        return 1
    return 0


def _list(keys: ApiKeys) -> None:
    for key in keys.list():
        revoked = f"revoked {key.revoked_at}" if key.revoked_at else "-"
        limits = "unlimited" if key.unlimited else "limited"
        scopes = ",".join(sorted(key.scopes))
        print(key.key_id, scopes, key.tenant, limits, key.created_at, revoked, ascii(key.name), sep="\t")


def _tenant(text: str) -> str:
    if not re.fullmatch(PATTERN, text):
        raise argparse.ArgumentTypeError("1 to 64 letters, digits, '_', '.' and '-', a letter or digit first")
    return text

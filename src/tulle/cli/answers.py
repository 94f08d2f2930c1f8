"""What several commands tell of an apply: how many proxies have it, which refused what and why, who has not answered.

Knows the admin API's `Applied` (serve/wire.py) and nothing of files.
"""

from typing import Any

import click

from tulle.cli.output import Exit, Finding, count, is_error, report


def verdict(applied: dict[str, Any], what: str = "live on") -> Exit:
    """Say what became of a change; the exit code."""
    problems = [Finding.told(raw) for raw in applied["problems"]]
    report(problems)
    for refused in applied["refused"]:
        report([_refusal(refused)])
    _tell(applied, what)
    if applied["refused"] or any(is_error(found) for found in problems):
        return Exit.FAILED
    return Exit.TIMEOUT if applied["waiting"] else Exit.OK


def _tell(applied: dict[str, Any], what: str) -> None:
    affected, live, took = applied["affected"], applied["live"], applied["milliseconds"]
    if affected:
        click.echo(f"{what} {live} of {count(affected, 'proxy')} in {took} ms")
    else:
        click.echo(f"no proxy needs anything of this ({took} ms)")
    if applied["waiting"]:
        click.echo(f"waiting for {', '.join(sorted(applied['waiting']))}")
    if applied.get("disconnected"):
        click.echo(f"not connected, gets it later: {', '.join(sorted(applied['disconnected']))}")


def _refusal(refused: dict[str, Any]) -> Finding:
    origin = refused.get("origin") or {}
    parts = (origin.get("kind") or "", origin.get("namespace") or "", origin.get("name") or "")
    kind = refused["typeUrl"].rpartition(".")[2]
    return Finding(
        "TUL0801",
        "error",
        f"{refused['proxy']} refuses {kind} {refused['resource']}: {refused['message']}",
        "The proxy goes on with what it had. Correct the object.",
        "/".join(part for part in parts if part),
        origin.get("path") or "",
        origin.get("file") or "",
        origin.get("line") or 0,
    )

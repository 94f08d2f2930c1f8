"""Every policy kind. The order of `KINDS` is the order of filters in a chain; a kind is a folder and a line here."""

from tulle.policies.fragments import Kind

KINDS: tuple[Kind, ...] = ()

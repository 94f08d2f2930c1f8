"""Istio's kinds and their served versions."""

from tulle.dialects.kinds import KindRead

KINDS: tuple[KindRead, ...] = ()

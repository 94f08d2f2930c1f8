"""Small messages that many others hold."""

from tulle.xds import api

ADS = api.ConfigSource(ads={}, resource_api_version="V3")
"""It comes over the one stream to the control plane. Fields copy it."""


def text_format(text: str) -> "api.SubstitutionFormatString":
    """A line of text with Envoy's `%OPERATORS%`."""
    return api.SubstitutionFormatString(text_format_source=api.DataSource(inline_string=text))

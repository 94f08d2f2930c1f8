"""Every policy kind. The order of `KINDS` is the order of filters in a chain; a kind is a folder and a line here."""

from tulle.policies import (
    authorization,
    connection_pool,
    cors,
    fault,
    headers,
    load_balancing,
    mirror,
    outlier_detection,
    retry,
    timeout,
)
from tulle.policies.fragments import Kind

KINDS: tuple[Kind, ...] = (
    cors.KIND,
    fault.KIND,
    authorization.KIND,
    retry.KIND,
    timeout.KIND,
    headers.KIND,
    mirror.KIND,
    load_balancing.KIND,
    connection_pool.KIND,
    outlier_detection.KIND,
)

"""Ejecting hosts that fail, on the cluster, as Istio maps it: what is detected is enforced for all, nothing else is.

Source: Envoy `OutlierDetection`; Istio's OutlierDetection (no statistics of success rates; no panic unless asked for).
"""

from tulle.policies.durations import milliseconds
from tulle.policies.fragments import ClusterFragment
from tulle.policies.outlier_detection.spec import OutlierDetection
from tulle.xds import api


def on_cluster(spec: OutlierDetection) -> ClusterFragment:
    """A detector that is not configured stays as Envoy has it; 0 switches it off."""
    detection = api.OutlierDetection(
        interval=milliseconds(spec.interval_ms),
        base_ejection_time=milliseconds(spec.base_ejection_ms),
        max_ejection_percent=_number(spec.max_ejection_percent or None),  # Istio: 0 is Envoy's default, 10
        enforcing_success_rate=_number(0),
        consecutive_5xx=_number(spec.consecutive_5xx),
        enforcing_consecutive_5xx=_enforced(spec.consecutive_5xx),
        consecutive_gateway_failure=_number(spec.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure=_enforced(spec.consecutive_gateway_errors),
    )
    if spec.split_external_local_origin:
        local = spec.consecutive_local_origin_failures or None
        detection.MergeFrom(
            api.OutlierDetection(
                split_external_local_origin_errors=True,
                consecutive_local_origin_failure=_number(local),
                enforcing_consecutive_local_origin_failure=_enforced(local),
                enforcing_local_origin_success_rate=_number(0),
            )
        )
    panic = api.Percent(value=float(spec.min_health_percent))
    return ClusterFragment(
        cluster={
            "outlier_detection": detection,
            "common_lb_config": api.Cluster.CommonLbConfig(healthy_panic_threshold=panic),
        }
    )


def _number(value: int | None) -> "api.UInt32Value | None":
    return None if value is None else api.UInt32Value(value=value)


def _enforced(value: int | None) -> "api.UInt32Value | None":
    return None if value is None else api.UInt32Value(value=100 if value else 0)

"""The policy kind `outlier_detection`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fragments import Kind
from tulle.policies.outlier_detection import envoy
from tulle.policies.outlier_detection.spec import OutlierDetection

KIND = Kind("outlier_detection", OutlierDetection, on_cluster=envoy.on_cluster)

"""What KubeRay's RayCluster (ray.io/v1) has around its pods: which keys, of which type.

Written by hand for these tests, from KubeRay's description of its API at commit feeaf72f, whose own file has 930 kB and lies nowhere here.
Parts that `deploy/kubernetes/base` does not use are objects of any kind, and pods are checked by Kubernetes' own schema.
"""

from __future__ import annotations

from typing import Any

_TEXT, _NUMBER, _FLAG, _ANY = ({"type": name} for name in ("string", "integer", "boolean", "object"))
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": _TEXT}


def _object(*required: str, **keys: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": keys, "required": list(required), "additionalProperties": False}


_GROUP = {"template": _ANY, "rayStartParams": _TEXTS, "labels": _TEXTS, "resources": _TEXTS}
_HEAD = _object("template", **_GROUP, serviceType=_TEXT, headService=_ANY, enableIngress=_FLAG, ingressOptions=_ANY)
_WORKERS = _object(
    "groupName",
    "maxReplicas",
    "minReplicas",
    "template",
    **_GROUP,
    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas", "numOfHosts", "idleTimeoutSeconds", "priority"), _NUMBER),
    groupName=_TEXT,
    suspend=_FLAG,
    scaleStrategy=_ANY,
)
RAY_CLUSTER: dict[str, Any] = _object(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=_ANY,
    spec=_object(
        "headGroupSpec",
        headGroupSpec=_HEAD,
        workerGroupSpecs={"type": "array", "items": _WORKERS},
        authOptions=_object(mode={"type": "string", "enum": ["disabled", "token"]}, secretName=_TEXT, enableK8sTokenAuth=_FLAG),
        rayVersion=_TEXT,
        managedBy=_TEXT,
        headServiceAnnotations=_TEXTS,
        **dict.fromkeys(("suspend", "enableInTreeAutoscaling"), _FLAG),
        **dict.fromkeys(("autoscalerOptions", "gcsFaultToleranceOptions", "historyServerOptions"), _ANY),
        **dict.fromkeys(("networkPolicy", "tlsOptions", "upgradeStrategy"), _ANY),
    ),
)

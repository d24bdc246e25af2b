"""The rules of a Job's `podFailurePolicy`."""

from flexcore.testing.kubernetes.resources import Item


def failure_rule(policy: Item, pod: Item) -> tuple[str, str]:
    """Give the action of the first rule that a failed pod matches, with the message; nothing if there is none."""
    for index, rule in enumerate(policy.get("rules") or []):
        if "onExitCodes" in rule and (found := _container(rule["onExitCodes"], pod)):
            name, code = found
            where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return rule["action"], (
                f"Container {name} for pod {where} failed with exit code {code} "
                f"matching {rule['action']} rule at index {index}"
            )
        for wanted in rule.get("onPodConditions") or []:
            conditions = pod["status"].get("conditions", [])
            if any(
                each["type"] == wanted["type"] and each["status"] == wanted.get("status", "True") for each in conditions
            ):
                return rule[
                    "action"
                ], f"Pod has condition {wanted['type']} matching {rule['action']} rule at index {index}"
    return "", ""


def _container(wanted: Item, pod: Item) -> tuple[str, int] | None:
    status = pod["status"]
    for each in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        ended = each["state"].get("terminated")
        if ended is None or ended["exitCode"] == 0 or wanted.get("containerName") not in (None, each["name"]):
            continue
        if (ended["exitCode"] in wanted["values"]) == (wanted["operator"] == "In"):
            return each["name"], ended["exitCode"]
    return None

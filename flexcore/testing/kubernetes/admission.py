"""Who may do what, and how much: accounts, quota, service accounts, pod security, namespaces."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from flexcore.testing.kubernetes.refusal import Refusal, forbidden, not_found
from flexcore.testing.kubernetes.resources import (
    NAMESPACES,
    PODS,
    QUOTAS,
    SERVICE_ACCOUNTS,
    Item,
    Resource,
    is_going,
    quantity,
)
from flexcore.testing.kubernetes.store import Store


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a token stands for. `denied` has pairs of verb and resource (`create jobs.batch`, `* *`)."""

    user: str
    denied: frozenset[str] = frozenset()

    def may(self, verb: str, resource: str) -> bool:
        """Say whether the account has the permission."""
        forms = {f"{v} {r}" for v in (verb, "*") for r in (resource, "*")}
        return not forms & self.denied


@dataclass(frozen=True, slots=True)
class Access:
    """One thing to be permitted. `subresource` as in `pods/log`."""

    verb: str
    resource: Resource
    namespace: str = ""
    subresource: str = ""

    @property
    def what(self) -> str:
        """Name the resource as accounts are denied it."""
        plural = self.resource.plural + (f"/{self.subresource}" if self.subresource else "")
        return f"{plural}.{self.resource.group}" if self.resource.group else plural


def permit(account: Account, access: Access, name: str = "") -> None:
    """Refuse with 403 what the account may not do."""
    if account.may(access.verb, access.what):
        return
    plural = access.resource.plural + (f"/{access.subresource}" if access.subresource else "")
    qualified = f'{access.what} "{name}"' if name else access.what
    where = f' in the namespace "{access.namespace}"' if access.namespace else " at the cluster scope"
    message = (
        f'{qualified} is forbidden: User "{account.user}" cannot {access.verb} resource "{plural}" '
        f'in API group "{access.resource.group}"{where}'
    )
    about = {"name": name} if name else {}
    if access.resource.group:
        about["group"] = access.resource.group
    raise Refusal(403, "Forbidden", message, {**about, "kind": access.resource.plural})


def admit(store: Store, resource: Resource, item: Item) -> None:
    """Refuse what namespace, quota and policies forbid."""
    metadata = item["metadata"]
    name = metadata.get("name", "")
    if resource.namespaced:
        _admit_namespace(store, resource, metadata["namespace"], name)
    if resource == PODS:
        _admit_account(store, item)
        _admit_security(store, item)
    for quota in store.items(QUOTAS, metadata.get("namespace", "") or "-"):
        _admit_quota(store, resource, item, quota)


def _admit_namespace(store: Store, resource: Resource, namespace: str, name: str) -> None:
    found = store.find(NAMESPACES, "", namespace)
    if found is None:
        raise not_found(NAMESPACES, namespace)
    if is_going(found):
        message = f"unable to create new content in namespace {namespace} because it is being terminated"
        refusal = forbidden(resource, name, message)
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
        refusal.details = {**(refusal.details or {}), "causes": [{**cause, "field": "metadata.namespace"}]}
        raise refusal


def _admit_account(store: Store, pod: Item) -> None:
    metadata = pod["metadata"]
    namespace, account = metadata["namespace"], pod["spec"]["serviceAccountName"]
    if store.find(SERVICE_ACCOUNTS, namespace, account) is None:
        # This check comes before the name is generated, so the message has only its beginning.
        name = metadata.get("generateName") or metadata["name"]
        lacking = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden(PODS, name, lacking)


def _admit_security(store: Store, pod: Item) -> None:
    labels = store.get(NAMESPACES, "", pod["metadata"]["namespace"])["metadata"].get("labels") or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    if found := list(security_violations(pod["spec"], level)):
        message = f'violates PodSecurity "{level}:latest": {", ".join(found)}'
        raise forbidden(PODS, pod["metadata"]["name"], message)


def security_violations(spec: Item, level: str) -> Iterator[str]:
    """Say what of a pod a level of pod security does not allow; of the many rules, the commonest."""
    if level not in ("baseline", "restricted"):
        return
    containers = [*spec.get("initContainers", []), *spec.get("containers", [])]
    for container in containers:
        if (container.get("securityContext") or {}).get("privileged"):
            named = f'container "{container["name"]}" must not set securityContext.privileged=true'
            yield f"privileged ({named})"
    if any("hostPath" in each for each in spec.get("volumes", [])):
        yield "hostPath volumes"
    if level == "restricted":
        yield from _unrestricted(spec, containers)


def _unrestricted(spec: Item, containers: list[Item]) -> Iterator[str]:
    of_pod = spec.get("securityContext") or {}
    for container in containers:
        context = {**of_pod, **(container.get("securityContext") or {})}
        named = f'container "{container["name"]}"'
        if context.get("allowPrivilegeEscalation") is not False:
            yield (
                f"allowPrivilegeEscalation != false ({named} must set securityContext.allowPrivilegeEscalation=false)"
            )
        if context.get("runAsNonRoot") is not True:
            yield f"runAsNonRoot != true (pod or {named} must set securityContext.runAsNonRoot=true)"


@dataclass
class _Demand:
    requested: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)


def _admit_quota(store: Store, resource: Resource, item: Item, quota: Item) -> None:
    demand, name = _Demand(), quota["metadata"]["name"]
    for what, limit in (quota.get("spec", {}).get("hard") or {}).items():
        counted = what in (f"count/{resource.qualified}", resource.plural)
        if not counted and resource == PODS and what.partition("/")[0] != "count":
            if not (lacking := _lacking(item, what)):
                counted = what in _COMPUTED
            else:
                raise forbidden(
                    PODS, item["metadata"]["name"], f"failed quota: {name}: must specify {what} for: {lacking}"
                )
        if not counted:
            continue
        asked, used = _amount(item, what), _used(store, resource, item, what)
        if asked + used > quantity(limit):
            demand.requested.append(f"{what}={_text(asked)}")
            demand.used.append(f"{what}={_text(used)}")
            demand.limited.append(f"{what}={limit}")
    if demand.requested:
        parts = [f"requested: {','.join(demand.requested)}", f"used: {','.join(demand.used)}"]
        message = f"exceeded quota: {name}, {', '.join(parts)}, limited: {','.join(demand.limited)}"
        raise forbidden(resource, item["metadata"]["name"], message)


_COMPUTED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


def _amount(item: Item, what: str) -> float:
    if what not in _COMPUTED:
        return 1
    return sum(_of_container(each, what) or 0 for each in item["spec"].get("containers", []))


def _of_container(container: Item, what: str) -> float | None:
    group, _, kind = what.rpartition(".")
    value = container.get("resources", {}).get(group or "requests", {}).get(kind)
    return None if value is None else quantity(value)


def _lacking(item: Item, what: str) -> str:
    if what not in _COMPUTED:
        return ""
    containers = item["spec"].get("containers", [])
    return ",".join(each["name"] for each in containers if _of_container(each, what) is None)


def _used(store: Store, resource: Resource, item: Item, what: str) -> float:
    there = store.items(resource, item["metadata"]["namespace"])
    if resource == PODS:
        there = [each for each in there if each["status"].get("phase") not in ("Succeeded", "Failed")]
    return sum(_amount(each, what) for each in there)


def _text(amount: float) -> str:
    return f"{amount:g}"

"""What Kubernetes' schemas do not ask for, of manifests: python3 kubernetes_rules.py FILE…

Every container runs as another user than root, with a root file system that it cannot write to, without new rights and
without capabilities. Probes ask /live, never /ready. Names that refer to each other are there.
"""

import glob
import os
import sys

import yaml

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def documents(paths):
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for document in yaml.safe_load_all(file):
                if document:
                    yield os.path.basename(path), document


def pod_of(document):
    """Metadata and spec of the pods that a document makes; None where it makes none."""
    spec = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if document["kind"] == "Pod":
        return document["metadata"], spec
    template = spec.get("template")
    return template and (template.get("metadata", {}), template["spec"])


def of_container(pod, container):
    own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
    either = {**shared, **own}
    if either.get("runAsNonRoot") is not True or not either.get("runAsUser"):
        yield "runs as root, or may: runAsNonRoot and runAsUser"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root file system: readOnlyRootFilesystem"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "may gain rights: allowPrivilegeEscalation"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities: drop [ALL]"
    if either.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "may use every system call: seccompProfile"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "has no limit of memory"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if container.get(probe, {}).get("httpGet", {}).get("path", "/live") != "/live":
            yield f"its {probe} asks something else than /live"
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    for name in mounted - {volume["name"] for volume in pod.get("volumes", [])}:
        yield f"mounts {name}, which is no volume of the pod"


def of_pod(pod, known):
    if pod.get("automountServiceAccountToken") is not False:
        yield "is handed a token of the cluster: automountServiceAccountToken"
    for volume in pod.get("volumes", []):
        for kind, member, key in (
            ("ConfigMap", "configMap", "name"),
            ("Secret", "secret", "secretName"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            name = volume.get(member, {}).get(key)
            if name and (kind, name) not in known:
                yield f"names the {kind} {name}, which no manifest shows"


def selects(selector, labels):
    return selector.items() <= labels.items()


def of_selector(document, pods):
    spec = document.get("spec", {})
    if document["kind"] == "Deployment":
        if not selects(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]):
            yield "selects other pods than its own"
    selector = {
        "Service": lambda: spec["selector"],
        "NetworkPolicy": lambda: spec["podSelector"].get("matchLabels", {}),
    }.get(document["kind"])
    if selector and not any(selects(selector(), labels) for labels in pods):
        yield "selects no pod of any manifest"


def main(paths):
    given = list(documents(paths))
    every = given + list(documents(sorted(glob.glob(os.path.join(ROOT, "deploy/kubernetes/*.yaml")))))
    known = {(document["kind"], document["metadata"]["name"]) for _, document in every}
    pods = [pod_of(document)[0].get("labels", {}) for _, document in every if pod_of(document)]
    problems, containers = [], 0
    for file, document in given:
        about = f"{file}: {document['kind']} {document['metadata']['name']}"
        problems += [f"{about} {problem}" for problem in of_selector(document, pods)]
        if not pod_of(document):
            continue
        pod = pod_of(document)[1]
        problems += [f"{about} {problem}" for problem in of_pod(pod, known)]
        for container in pod.get("initContainers", []) + pod["containers"]:
            containers += 1
            problems += [f"{about}, container {container['name']}: {p}" for p in of_container(pod, container)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(given)} resources, {containers} containers, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

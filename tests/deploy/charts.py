"""Renders the chart in every way it is meant to be used and checks each manifest strictly against the
schemas of the oldest and the newest Kubernetes that the chart and the schemas know."""

import copy
import sys

import helm_python as helm
import kubernetes_validate
import yaml

SETS = {
    "postgres, as it comes": {},
    "postgres, everything on": {
        "postgres": {"caConfigMap": "database-ca"},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        "environment": {"WIDGETS_LOG_FILTER": "info"},
        "imagePullSecrets": [{"name": "registry"}],
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "databaseTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        },
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"note": "yes"},
        "service": {"annotations": {"note": "yes"}},
    },
    "postgres, nothing optional": {
        "postgres": {
            "autoscaling": {"enabled": False},
            "disruptionBudget": {"enabled": False},
            "migrate": {"enabled": False},
        },
        "networkPolicy": {"enabled": False},
    },
    "embedded": {
        "store": "embedded",
        "embedded": {"persistence": {"storageClass": "fast"}},
        "ingress": {"enabled": True},
    },
}
VERSIONS = ["1.27", "1.37"]
# Of the Prometheus operator: their schemas are in no registry that the test uses.
UNCHECKED = {"ServiceMonitor", "PrometheusRule"}


def manifests(chart, values):
    rendered = chart.render(values, name="demo", namespace="prod")
    for path, text in rendered.items():
        if not path.endswith("NOTES.txt"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def problems(document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None


def pods(documents):
    for document in documents:
        template = document.get("spec", {}).get("template")
        if template:
            yield template["spec"]


def main(path):
    checked = 0
    unchecked = set()
    lint = helm.lint(path)
    assert not lint["errors"], lint
    with helm.Chart.load(path) as chart:
        for name, values in SETS.items():
            documents = list(manifests(chart, values))
            kinds = sorted(document["kind"] for document in documents)
            print(f"{name}: {', '.join(kinds)}")
            for document in documents:
                if document["kind"] in UNCHECKED:
                    unchecked.add(document["kind"])
                    continue
                for version in VERSIONS:
                    problem = problems(document, version)
                    assert problem is None, f"{name}, {document['kind']}, {version}: {problem}"
                    checked += 1
            for pod in pods(documents):
                assert pod["securityContext"]["runAsNonRoot"]
                for container in pod["containers"]:
                    assert container["securityContext"]["readOnlyRootFilesystem"]
                    assert container["resources"]["limits"]["memory"]
            if name == "embedded":
                (store,) = (each for each in documents if each["kind"] == "StatefulSet")
                assert store["spec"]["replicas"] == 1
                assert "WIDGETS_STORE" not in str(store)
            if "nothing" in name:
                assert kinds == ["Deployment", "Service"], kinds
            if "everything" in name:
                (rules,) = (each for each in documents if each["kind"] == "PrometheusRule")
                assert len(rules["spec"]["groups"][0]["rules"]) > 10
        # The check itself: a misspelt key must not pass.
        broken = copy.deepcopy(next(each for each in manifests(chart, {}) if each["kind"] == "Deployment"))
        broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
        assert problems(broken, VERSIONS[-1]), "a misspelt key passed"
        for wrong in ({"store": "mysql"}, {"postgres": {"replicas": 0}}, {"environment": {"A": 1}}):
            try:
                chart.validate_schema(wrong)
            except helm.HelmError:
                continue
            raise AssertionError(f"values.schema.json takes {wrong}")
    print(f"{checked} manifests checked; without a schema, so only rendered: {', '.join(sorted(unchecked))}")


main(sys.argv[1])

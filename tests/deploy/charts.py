"""Renders the chart in every intended configuration and checks each manifest strictly against the schemas of the oldest
Kubernetes that the chart supports and of the newest for which there are schemas."""

import copy
import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml

SETS = {
    "postgres, default values": {},
    "postgres, all options": {
        "postgres": {"caConfigMap": "database-ca"},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "metrics": {
            "serviceMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True, "runbooks": "https://docs.example.com/run"},
        },
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
    "postgres by CloudNativePG": yaml.safe_load(
        (pathlib.Path(sys.argv[1]).parent / "cloudnative-pg/values.yaml").read_text()
    ),
    "postgres, no options": {
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
    "embedded, with a standby": {
        "store": "embedded",
        "embedded": {"standby": {"enabled": True, "primary": "second"}},
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
        "metrics": {"serviceMonitor": {"enabled": True}},
        "tls": {"secret": "tls"},
    },
    "embedded, archived": {
        "store": "embedded",
        "embedded": {
            "archive": {
                "url": "s3://bucket/widgets",
                "check": {"enabled": True},
                "prune": {"enabled": True, "keep": "30days", "envFrom": [{"secretRef": {"name": "pruner"}}]},
            }
        },
        "envFrom": [{"secretRef": {"name": "bucket"}}],
        "networkPolicy": {"extraEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    },
    "files, secrets and certificates": {
        "config": "[http]\nbody_bytes_max = 8192\n",
        "extraEnv": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        "envFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "secret": {"secretName": "more"}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": True}],
        "auth": {"jwtSecret": {"name": "keys"}},
        "tls": {"secret": "certificate"},
        "environment": {"WIDGETS_ALLOW_PUBLIC_WITHOUT_AUTH": "false"},
        "metrics": {"serviceMonitor": {"enabled": True, "endpoint": {"tlsConfig": {"serverName": "demo"}}}},
    },
    "client certificates and an identity provider": {
        "store": "embedded",
        "auth": {"jwksUrl": "https://login.example.com:8443/keys"},
        "tls": {"secret": "certificate", "clientCa": {"configMap": "clients"}},
    },
    "OpenShift, IPv6 alone": {
        "openshift": True,
        "service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]},
    },
}
VERSIONS = ["1.30", "1.37"]
# Kinds of the Prometheus operator: no registry that the test uses has their schemas.
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


def of_kind(documents, kind):
    (found,) = (each for each in documents if each["kind"] == kind)
    return found


def container(documents, kind="Deployment"):
    """Returns the service's container and its plain variables."""
    (only,) = of_kind(documents, kind)["spec"]["template"]["spec"]["containers"]
    return only, {each["name"]: each.get("value") for each in only["env"]}


def mounted(documents, kind="Deployment"):
    """Returns where each volume of the pod is mounted, after checking that the volumes are exactly those that are mounted."""
    pod = of_kind(documents, kind)["spec"]["template"]["spec"]
    volumes = {each["name"] for each in pod["volumes"]}
    volumes |= {each["metadata"]["name"] for each in of_kind(documents, kind)["spec"].get("volumeClaimTemplates", [])}
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert volumes == set(mounts), (volumes, mounts)
    return mounts


def ports_out(documents):
    rules = of_kind(documents, "NetworkPolicy")["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"]}


def namespaces_in(documents):
    (rule,) = of_kind(documents, "NetworkPolicy")["spec"]["ingress"]
    selectors = (each.get("namespaceSelector") for each in rule["from"])
    return [next(iter(each["matchLabels"].values())) for each in selectors if each]


def check_postgres(documents):
    service, variables = container(documents)
    assert variables["WIDGETS_LISTEN"] == "0.0.0.0:3000"
    assert service["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert namespaces_in(documents) == [] and ports_out(documents) == {53, 5432}


def check_cloudnative_pg(documents):
    """Checks the chart with its values for CloudNativePG, and the database that belongs to them."""
    folder = pathlib.Path(sys.argv[1]).parent / "cloudnative-pg"
    (database,) = yaml.safe_load_all((folder / "cluster.yaml").read_text())
    name, spec = database["metadata"]["name"], database["spec"]
    assert (database["apiVersion"], database["kind"]) == ("postgresql.cnpg.io/v1", "Cluster"), database
    # Three instances, so that a commit is on two even if one is down, and each on a different node.
    assert spec["instances"] == 3 and spec["affinity"]["podAntiAffinityType"] == "required", spec
    assert spec["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}, spec
    # The operator requires text, but YAML reads `on` as a boolean.
    parameters = spec["postgresql"]["parameters"]
    assert all(isinstance(value, str) for value in parameters.values()), parameters
    recipe = folder.parents[1] / "docker-compose/patroni/patroni.yml"
    same = yaml.safe_load(recipe.read_text())["bootstrap"]["dcs"]["postgresql"]["parameters"]
    shared = set(parameters) & set(same)
    assert len(shared) > 8 and all(parameters[each] == str(same[each]) for each in shared), (parameters, same)
    roles = {each["name"]: each for each in spec["managed"]["roles"]}
    assert roles["authenticator"]["inherit"] is False and roles["authenticator"]["inRoles"] == ["web_anon"], roles
    (to,) = [each["to"] for each in of_kind(documents, "NetworkPolicy")["spec"]["egress"] if {"port": 5432, "protocol": "TCP"} in each["ports"]]
    assert to == [{"podSelector": {"matchLabels": {"cnpg.io/cluster": name}}}], to
    pods_ = [of_kind(documents, kind)["spec"]["template"]["spec"] for kind in ("Deployment", "Job")]
    for pod, secret in zip(pods_, ("widgets-store", "widgets-owner")):
        (url,) = [each["valueFrom"]["secretKeyRef"] for each in pod["containers"][0]["env"] if each["name"] == "WIDGETS_STORE"]
        assert url == {"name": secret, "key": "url"}, url
        (ca,) = [each["secret"] for each in pod["volumes"] if each["name"] == "ca"]
        assert ca == {"secretName": f"{name}-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}, ca
        assert "/etc/widgets/ca" in [each["mountPath"] for each in pod["containers"][0]["volumeMounts"]]
    # The page with the instructions must use the same names.
    page = (folder.parent / "README.md").read_text()
    password = roles["authenticator"]["passwordSecret"]["name"]
    for told in (f"@{name}-rw/{spec['bootstrap']['initdb']['database']}?", f"secret generic {password} ", f"secret {name}-app ",
                 f"postgres://{spec['bootstrap']['initdb']['owner']}:", "secret generic widgets-store", "secret generic widgets-owner"):
        assert told in page, f"README.md does not have {told}"


def check_all_options(documents):
    rules = of_kind(documents, "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert len(rules) > 10
    for rule in rules:
        link = rule["annotations"]["runbook_url"]
        assert link.startswith("https://docs.example.com/run/operations.md#"), link
    # The Ingress controller and Prometheus may reach the service without additional configuration.
    assert namespaces_in(documents) == ["ingress", "ingress-nginx", "monitoring"]
    paths = of_kind(documents, "Ingress")["spec"]["rules"][0]["http"]["paths"]
    assert {each["path"] for each in paths} == {"/", "/rpc", "/widgets", "/slots", "/changes", "/live", "/ready", "/swagger-ui", "/console"}


def check_no_options(documents):
    assert sorted(each["kind"] for each in documents) == ["Deployment", "Service"]


def check_embedded(documents):
    store = of_kind(documents, "StatefulSet")
    assert store["spec"]["replicas"] == 1
    assert "WIDGETS_STORE" not in str(store)
    assert "updateStrategy" not in store["spec"]
    service, variables = container(documents, "StatefulSet")
    assert variables["WIDGETS_MUST_EXIST"] == "false"
    # Ten million widgets and a checkpoint need less.
    assert service["resources"]["limits"]["memory"] == "2Gi"
    assert of_kind(documents, "NetworkPolicy")["spec"]["egress"] == []


def check_standby(documents):
    stores = {each["metadata"]["name"]: each for each in documents if each["kind"] == "StatefulSet"}
    assert sorted(stores) == ["demo-widgets", "demo-widgets-second"], sorted(stores)
    services = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Service"}
    assert sorted(services) == ["demo-widgets", "demo-widgets-first", "demo-widgets-second"], sorted(services)
    variables, labels = {}, {}
    for name, store in stores.items():
        template = store["spec"]["template"]
        assert store["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert store["spec"]["serviceName"] in services
        # An upgrade must not restart both at once.
        assert store["spec"]["updateStrategy"] == {"type": "OnDelete"}
        (only,) = template["spec"]["containers"]
        variables[name] = {each["name"]: each.get("value") for each in only["env"]}
        labels[name] = template["metadata"]["labels"]
    address = variables["demo-widgets-second"]["WIDGETS_FOLLOW"]
    assert address == "https://demo-widgets-first.prod.svc:80", address
    # The second store fills an empty volume from the other store, whatever role it had. For the first store, an empty
    # volume is an error after the first upgrade.
    assert "WIDGETS_MUST_EXIST" not in variables["demo-widgets-second"]
    assert variables["demo-widgets"].get("WIDGETS_MUST_EXIST") == "false" and "WIDGETS_FOLLOW" not in variables["demo-widgets"]

    def stores_selected_by(service):
        wanted = services[service]["selector"].items()
        return [name for name in stores if wanted <= labels[name].items()]

    assert stores_selected_by("demo-widgets") == stores_selected_by("demo-widgets-second") == ["demo-widgets-second"]
    assert stores_selected_by("demo-widgets-first") == ["demo-widgets"]
    policy = of_kind(documents, "NetworkPolicy")["spec"]
    own = {"podSelector": {"matchLabels": policy["podSelector"]["matchLabels"]}}
    assert own in policy["ingress"][0]["from"], policy["ingress"]
    assert any(own in rule.get("to", []) for rule in policy["egress"]), policy["egress"]
    monitor = of_kind(documents, "ServiceMonitor")["spec"]["selector"]
    (only,) = monitor["matchExpressions"]
    asked = [each["metadata"]["name"] for each in documents if each["kind"] == "Service"
             and each["metadata"]["labels"].get(only["key"]) in only["values"]]
    assert sorted(asked) == ["demo-widgets-first", "demo-widgets-second"], asked


def check_archived(documents):
    _, variables = container(documents, "StatefulSet")
    jobs = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "CronJob"}
    assert sorted(jobs) == ["demo-widgets-archive-check", "demo-widgets-archive-prune"], sorted(jobs)
    ran = {}
    for name, job in jobs.items():
        pod = job["jobTemplate"]["spec"]["template"]["spec"]
        (only,) = pod["containers"]
        given = {each["name"]: each["value"] for each in only["env"]}
        assert variables["WIDGETS_ARCHIVE_URL"] == given["WIDGETS_ARCHIVE_URL"] == "s3://bucket/widgets"
        assert job["concurrencyPolicy"] == "Forbid" and pod["securityContext"]["runAsNonRoot"]
        assert only["securityContext"]["readOnlyRootFilesystem"] and only["resources"]["limits"]["memory"]
        volumes = {each["name"]: each["emptyDir"]["sizeLimit"] for each in pod.get("volumes", [])}
        assert {each["name"] for each in only.get("volumeMounts", [])} == set(volumes)
        keys = [each["secretRef"]["name"] for each in only["envFrom"]]
        assert "command" not in only, only
        ran[name.removeprefix("demo-widgets-")] = (only["args"], keys, volumes)
    # The same commands as in the Compose recipe, which tests/archive/recipes.py runs.
    assert ran["archive-check"] == (drill_of_compose(), ["bucket"], {"drill": "20Gi"}), ran
    assert ran["archive-prune"] == (["archive", "prune", "--keep", "30days"], ["bucket", "pruner"], {}), ran
    assert 443 in ports_out(documents)


def drill_of_compose():
    folder = pathlib.Path(sys.argv[1]).parents[1] / "docker-compose"
    services = yaml.safe_load((folder / "docker-compose.archive.yml").read_text())["services"]
    # The Compose recipe uses a volume of the container, the chart a volume of the pod.
    return [word.replace("/data/drill", "/drill/data") for word in services["archive-check"]["command"]]


def check_files(documents):
    service, variables = container(documents)
    assert mounted(documents) == {
        "data": "/data",
        "config": "/etc/widgets/config",
        "auth": "/etc/widgets/auth",
        "tls": "/etc/widgets/tls",
        "more": "/more",
    }
    assert variables["WIDGETS_CONFIG"] == "/etc/widgets/config/widgets.toml"
    assert variables["WIDGETS_JWT_SECRET_FILE"] == "/etc/widgets/auth/keys"
    assert variables["WIDGETS_TLS_CERTIFICATE"] == "/etc/widgets/tls/tls.crt"
    assert variables["WIDGETS_ALLOW_PUBLIC_WITHOUT_AUTH"] == "false"
    assert "A" in variables and service["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert of_kind(documents, "ConfigMap")["data"]["widgets.toml"] == "[http]\nbody_bytes_max = 8192\n"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert service[probe]["httpGet"]["scheme"] == "HTTPS", service[probe]
    (endpoint,) = of_kind(documents, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https" and endpoint["tlsConfig"]["serverName"] == "demo"


def check_client_certificates(documents):
    service, variables = container(documents, "StatefulSet")
    assert mounted(documents, "StatefulSet")["client-ca"] == "/etc/widgets/client-ca"
    assert variables["WIDGETS_TLS_CLIENT_CA"] == "/etc/widgets/client-ca/ca.crt"
    assert variables["WIDGETS_JWKS_URL"] == "https://login.example.com:8443/keys"
    assert service["readinessProbe"]["exec"]["command"] == ["widgets", "health"]
    assert service["livenessProbe"]["exec"]["command"] == ["widgets", "health", "--live"]
    assert ports_out(documents) == {53, 8443}


def check_openshift(documents):
    _, variables = container(documents)
    assert variables["WIDGETS_LISTEN"] == "[::]:3000"
    for pod in pods(documents):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"]), pod["securityContext"]
    assert of_kind(documents, "Service")["spec"]["ipFamilies"] == ["IPv6"]


CHECKS = {
    "postgres, default values": check_postgres,
    "postgres, all options": check_all_options,
    "postgres by CloudNativePG": check_cloudnative_pg,
    "postgres, no options": check_no_options,
    "embedded": check_embedded,
    "embedded, with a standby": check_standby,
    "embedded, archived": check_archived,
    "files, secrets and certificates": check_files,
    "client certificates and an identity provider": check_client_certificates,
    "OpenShift, IPv6 alone": check_openshift,
}


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
                for each in pod["containers"]:
                    assert each["securityContext"]["readOnlyRootFilesystem"]
                    assert each["resources"]["limits"]["memory"]
            CHECKS[name](documents)
        upgraded = chart.render({"store": "embedded"}, name="demo", namespace="prod", is_upgrade=True)
        store = next(text for path, text in upgraded.items() if path.endswith("statefulset.yaml"))
        _, variables = container(list(yaml.safe_load_all(store)), "StatefulSet")
        assert variables["WIDGETS_MUST_EXIST"] == "true"
        # Tests the check itself: a misspelt key must not pass.
        broken = copy.deepcopy(next(each for each in manifests(chart, {}) if each["kind"] == "Deployment"))
        broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
        assert problems(broken, VERSIONS[-1]), "a misspelt key passed"
        for wrong in ({"store": "mysql"}, {"resources": {"limits": {}}}, {"auth": {"jwksUrl": "login"}}, {"postgres": {"replicas": 0}}, {"environment": {"A": 1}},
                      {"embedded": {"archive": {"url": "bucket"}}}, {"embedded": {"standby": {"primary": "third"}}}, {"embedded": {"archive": {"prune": {"keep": "; rm"}}}}):
            try:
                chart.validate_schema(wrong)
            except helm.HelmError:
                continue
            raise AssertionError(f"values.schema.json accepts {wrong}")
    print(f"{checked} manifests checked; without a schema, so only rendered: {', '.join(sorted(unchecked))}")


main(sys.argv[1])

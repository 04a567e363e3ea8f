{{- define "widgets.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "widgets.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "widgets.labels" -}}
{{ include "widgets.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "widgets.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Only /data is writable in the container, and it has no privileges. */}}
{{- define "widgets.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* OpenShift assigns each namespace a range of users and refuses others. */}}
{{- define "widgets.openshift" -}}
{{- if eq (toString .Values.openshift) "auto" }}{{ .Capabilities.APIVersions.Has "security.openshift.io/v1" }}{{ else }}{{ .Values.openshift }}{{ end }}
{{- end }}

{{- define "widgets.podSecurityContext" -}}
runAsNonRoot: true
{{- if ne (include "widgets.openshift" .) "true" }}
runAsUser: {{ .Values.runAs.user }}
runAsGroup: {{ .Values.runAs.group }}
fsGroup: {{ .Values.runAs.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Some clusters have only IPv6, and some nodes have none. */}}
{{- define "widgets.listen" -}}
{{- if eq (.Values.service.ipFamilies | first | default "IPv4") "IPv6" }}[::]:3000{{ else }}0.0.0.0:3000{{ end }}
{{- end }}

{{- define "widgets.mustExist" -}}
{{- if eq (toString .Values.embedded.mustExist) "auto" }}{{ .Release.IsUpgrade }}{{ else }}{{ .Values.embedded.mustExist }}{{ end }}
{{- end }}

{{/* The address at which the other store and `widgets promote` reach one of the two stores. */}}
{{- define "widgets.address" -}}
http{{ if .Values.tls.secret }}s{{ end }}://{{ include "widgets.name" . }}-{{ .of }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}

{{- define "widgets.clientCa" -}}
{{- or .Values.tls.clientCa.secret .Values.tls.clientCa.configMap }}
{{- end }}

{{/* How Kubernetes queries one of the service's paths. Its client presents no certificate, so if one is required,
`widgets health` queries from inside the pod. */}}
{{- define "widgets.probe" -}}
{{- if include "widgets.clientCa" .root }}
exec:
  command: [widgets, health{{ if eq .path "/live" }}, --live{{ end }}]
{{- else }}
httpGet:
  path: {{ .path }}
  port: http
  {{- if .root.Values.tls.secret }}
  scheme: HTTPS
  {{- end }}
{{- end }}
{{- end }}

{{- define "widgets.ca.mount" -}}
{{- if or .Values.postgres.caConfigMap .Values.postgres.caSecret.name }}
- name: ca
  mountPath: /etc/widgets/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "widgets.ca.volume" -}}
{{- if .Values.postgres.caSecret.name }}
# The Secret's other contents (the authority's key) are not mounted.
- name: ca
  secret:
    secretName: {{ .Values.postgres.caSecret.name }}
    items:
      - {key: {{ .Values.postgres.caSecret.key }}, path: {{ .Values.postgres.caSecret.key }}}
{{- else if .Values.postgres.caConfigMap }}
- name: ca
  configMap:
    name: {{ .Values.postgres.caConfigMap }}
{{- end }}
{{- end }}

{{/* The pod of both stores. */}}
{{- define "widgets.pod" -}}
metadata:
  labels:
    {{- include "widgets.labels" . | nindent 4 }}
    {{- if and .store .Values.embedded.standby.enabled }}
    app.kubernetes.io/component: {{ .store }}
    {{- end }}
  {{- if or .Values.podAnnotations .Values.config }}
  annotations:
    {{- if .Values.config }}
    # A changed file replaces the pod, because the file is read at the start.
    checksum/config: {{ .Values.config | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  # Longer than the pause before SIGTERM plus the service's wait for answers in progress (25 s).
  terminationGracePeriodSeconds: 40
  securityContext:
    {{- include "widgets.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: widgets
      image: {{ include "widgets.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        {{- if and (eq .Values.store "embedded") .Values.embedded.archive.url }}
        - name: WIDGETS_ARCHIVE_URL
          value: {{ .Values.embedded.archive.url | quote }}
        {{- end }}
        - name: WIDGETS_LISTEN
          value: {{ include "widgets.listen" . | quote }}
        {{- if eq .Values.store "postgres" }}
        - name: WIDGETS_STORE
          valueFrom:
            secretKeyRef:
              name: {{ .Values.postgres.secret.name }}
              key: {{ .Values.postgres.secret.key }}
        {{- else if eq .store "second" }}
        # Its role at the first start. Afterwards its volume records the role; an empty volume is filled from there.
        - name: WIDGETS_FOLLOW
          value: {{ include "widgets.address" (merge (dict "of" "first") .) | quote }}
        {{- else }}
        - name: WIDGETS_MUST_EXIST
          value: {{ include "widgets.mustExist" . | quote }}
        {{- if .Values.embedded.standby.firstFollows }}
        - name: WIDGETS_FOLLOW
          value: {{ include "widgets.address" (merge (dict "of" "second") .) | quote }}
        {{- end }}
        {{- end }}
        {{- if .Values.config }}
        - name: WIDGETS_CONFIG
          value: /etc/widgets/config/widgets.toml
        {{- end }}
        {{- if .Values.auth.jwtSecret.name }}
        - name: WIDGETS_JWT_SECRET_FILE
          value: /etc/widgets/auth/{{ .Values.auth.jwtSecret.key }}
        {{- end }}
        {{- with .Values.auth.jwksUrl }}
        - name: WIDGETS_JWKS_URL
          value: {{ . | quote }}
        {{- end }}
        {{- if .Values.tls.secret }}
        - name: WIDGETS_TLS_CERTIFICATE
          value: /etc/widgets/tls/tls.crt
        - name: WIDGETS_TLS_KEY
          value: /etc/widgets/tls/tls.key
        {{- end }}
        {{- if include "widgets.clientCa" . }}
        - name: WIDGETS_TLS_CLIENT_CA
          value: /etc/widgets/client-ca/{{ .Values.tls.clientCa.key }}
        {{- end }}
        {{- range $name, $value := .Values.environment }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: 3000
      # The embedded store reads its files before it answers.
      startupProbe:
        {{- include "widgets.probe" (dict "root" . "path" "/live") | nindent 8 }}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 300
      livenessProbe:
        {{- include "widgets.probe" (dict "root" . "path" "/live") | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 3
      readinessProbe:
        {{- include "widgets.probe" (dict "root" . "path" "/ready") | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      lifecycle:
        preStop:
          # Waits until everybody who sends requests here knows that the pod is terminating.
          sleep:
            seconds: 5
      resources:
        {{- toYaml (index .Values .Values.store).resources | nindent 8 }}
      securityContext:
        {{- include "widgets.securityContext" . | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /data
        {{- include "widgets.ca.mount" . | nindent 8 }}
        {{- if .Values.config }}
        - {name: config, mountPath: /etc/widgets/config, readOnly: true}
        {{- end }}
        {{- if .Values.auth.jwtSecret.name }}
        - {name: auth, mountPath: /etc/widgets/auth, readOnly: true}
        {{- end }}
        {{- if .Values.tls.secret }}
        - {name: tls, mountPath: /etc/widgets/tls, readOnly: true}
        {{- end }}
        {{- if include "widgets.clientCa" . }}
        - {name: client-ca, mountPath: /etc/widgets/client-ca, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if eq .Values.store "postgres" }}
    # Nothing is stored in it.
    - name: data
      emptyDir: {}
    {{- include "widgets.ca.volume" . | nindent 4 }}
    {{- end }}
    {{- if .Values.config }}
    - name: config
      configMap:
        name: {{ include "widgets.name" . }}
    {{- end }}
    {{- with .Values.auth.jwtSecret.name }}
    - name: auth
      secret:
        secretName: {{ . }}
    {{- end }}
    {{- with .Values.tls.secret }}
    - name: tls
      secret:
        secretName: {{ . }}
    {{- end }}
    {{- with .Values.tls.clientCa }}
    {{- if .secret }}
    - name: client-ca
      secret:
        secretName: {{ .secret }}
    {{- else if .configMap }}
    - name: client-ca
      configMap:
        name: {{ .configMap }}
    {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if eq .Values.store "postgres" }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "widgets.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

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

{{/* Nothing of the container but /data can be written, and it has no rights to give away. */}}
{{- define "widgets.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "widgets.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "widgets.ca.mount" -}}
{{- with .Values.postgres.caConfigMap }}
- name: ca
  mountPath: /etc/widgets/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "widgets.ca.volume" -}}
{{- with .Values.postgres.caConfigMap }}
- name: ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{/* The pod of both stores. */}}
{{- define "widgets.pod" -}}
metadata:
  labels:
    {{- include "widgets.labels" . | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  # Longer than the pause before SIGTERM and what the service then waits for (25 s).
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
        - name: WIDGETS_LISTEN
          value: 0.0.0.0:3000
        {{- if eq .Values.store "postgres" }}
        - name: WIDGETS_STORE
          valueFrom:
            secretKeyRef:
              name: {{ .Values.postgres.secret.name }}
              key: {{ .Values.postgres.secret.key }}
        {{- end }}
        {{- range $name, $value := .Values.environment }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      ports:
        - name: http
          containerPort: 3000
      # The embedded store reads its files before it listens.
      startupProbe:
        httpGet: {path: /live, port: http}
        periodSeconds: 2
        failureThreshold: 300
      livenessProbe:
        httpGet: {path: /live, port: http}
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /ready, port: http}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      lifecycle:
        preStop:
          # Until everybody who sends requests here has heard that the pod goes.
          exec:
            command: [sleep, "5"]
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "widgets.securityContext" . | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /data
        {{- include "widgets.ca.mount" . | nindent 8 }}
  {{- if eq .Values.store "postgres" }}
  volumes:
    # Nothing is kept in it.
    - name: data
      emptyDir: {}
    {{- include "widgets.ca.volume" . | nindent 4 }}
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

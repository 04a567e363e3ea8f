{{/* A job on the archive. Takes a list of the context, the job's name, its values, and the arguments of `widgets`. */}}
{{- define "widgets.archiveJob" -}}
{{- $context := index . 0 }}
{{- $name := index . 1 }}
{{- $values := index . 2 }}
{{- $command := index . 3 }}
{{- with $context }}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "widgets.name" . }}-{{ $name }}
  labels:
    app.kubernetes.io/name: {{ .Chart.Name }}-{{ $name }}
    app.kubernetes.io/instance: {{ .Release.Name }}
spec:
  schedule: {{ $values.schedule | quote }}
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      # Alert on a failed job.
      backoffLimit: 1
      activeDeadlineSeconds: 7200
      template:
        metadata:
          labels:
            app.kubernetes.io/name: {{ .Chart.Name }}-{{ $name }}
            app.kubernetes.io/instance: {{ .Release.Name }}
        spec:
          automountServiceAccountToken: false
          restartPolicy: Never
          securityContext:
            {{- include "widgets.podSecurityContext" . | nindent 12 }}
          {{- with .Values.imagePullSecrets }}
          imagePullSecrets:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          containers:
            - name: {{ $name }}
              image: {{ include "widgets.image" . }}
              imagePullPolicy: {{ .Values.image.pullPolicy }}
              args: {{ toJson $command }}
              env:
                - name: WIDGETS_ARCHIVE_URL
                  value: {{ required (printf "embedded.archive.url is needed for the job %s" $name) .Values.embedded.archive.url | quote }}
                {{- with .Values.extraEnv }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
              {{- with (concat .Values.envFrom ($values.envFrom | default list)) }}
              envFrom:
                {{- toYaml . | nindent 16 }}
              {{- end }}
              resources:
                {{- toYaml $values.resources | nindent 16 }}
              securityContext:
                {{- include "widgets.securityContext" . | nindent 16 }}
              {{- with $values.sizeLimit }}
              volumeMounts:
                - {name: drill, mountPath: /drill}
              {{- end }}
          {{- with $values.sizeLimit }}
          volumes:
            - name: drill
              emptyDir:
                sizeLimit: {{ . }}
          {{- end }}
{{- end }}
{{- end }}

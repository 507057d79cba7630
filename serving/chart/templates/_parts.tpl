{{- define "ontopic.name" -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{- define "ontopic.selector" -}}
app.kubernetes.io/name: ontopic
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ontopic.labels" -}}
{{ include "ontopic.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "ontopic.image" -}}
{{- with .image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.root.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* A pod's: no root, nothing that a container could gain. user: the image's own. */}}
{{- define "ontopic.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ontopic.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Variables from the secret: names, and those that may be missing. */}}
{{- define "ontopic.secrets" -}}
{{- range .names }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.root.Values.existingSecret }}, key: {{ . }}}}}
{{- end }}
{{- range .optional }}
- {name: {{ . }}, valueFrom: {secretKeyRef: {name: {{ $.root.Values.existingSecret }}, key: {{ . }}, optional: true}}}
{{- end }}
{{- end }}

{{- define "ontopic.trackingUri" -}}
{{- if .root.Values.mlflow.enabled }}
- {name: MLFLOW_TRACKING_URI, value: "http://{{ include "ontopic.name" .root }}-mlflow:5000"}
{{- else }}
{{- include "ontopic.secrets" (dict "root" .root "names" (list "MLFLOW_TRACKING_URI")) }}
{{- end }}
{{- end }}

{{- define "ontopic.objectStore" -}}
{{- include "ontopic.secrets" (dict "root" .root "optional" (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY")) }}
- {name: AWS_DEFAULT_REGION, value: {{ .root.Values.objectStore.region }}}
{{- with .root.Values.objectStore.endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* What may be written, as the image may not: a folder for state, one for the rest. */}}
{{- define "ontopic.folders" -}}
- {name: state, emptyDir: {sizeLimit: {{ .size }}}}
- {name: tmp, emptyDir: {sizeLimit: 4Gi}}
{{- if and .config .root.Values.existingConfigMap }}
- {name: config, configMap: {name: {{ .root.Values.existingConfigMap }}}}
{{- end }}
{{- end }}

{{- define "ontopic.mounts" -}}
- {name: state, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if and .config .root.Values.existingConfigMap }}
- {name: config, mountPath: /etc/ontopic, readOnly: true}
{{- end }}
{{- end }}

{{- define "ontopic.env" -}}
- {name: HOME, value: /tmp}
- {name: ONTOPIC_CACHE, value: /data/cache}
- {name: OMP_NUM_THREADS, valueFrom: {resourceFieldRef: {containerName: {{ .component }}, resource: limits.cpu}}}
{{- range $name, $value := .more }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* watch and the loop: one image, one configuration, one environment. */}}
{{- define "ontopic.runPod" -}}
{{- $values := index .root.Values .component -}}
metadata:
  labels: {{- include "ontopic.labels" . | nindent 4 }}
spec:
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  serviceAccountName: {{ .root.Values.serviceAccountName | default (include "ontopic.name" .root) }}
  automountServiceAccountToken: {{ not (empty .root.Values.serviceAccountName) }}
  {{- if eq .component "loop" }}
  restartPolicy: Never
  {{- else }}
  terminationGracePeriodSeconds: 60
  {{- end }}
  securityContext: {{- include "ontopic.podSecurity" (dict "user" 10001) | nindent 4 }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "ontopic.image" (dict "root" .root "image" .root.Values.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: {{- toYaml .args | nindent 8 }}
      env:
        {{- $optional := list "OPENAI_API_KEY" "ZENML_STORE_URL" "ZENML_STORE_API_KEY" }}
        {{- include "ontopic.secrets" (dict "root" .root "names" (list "ONTOPIC_STATE_URL") "optional" $optional) | trim | nindent 8 }}
        {{- include "ontopic.trackingUri" . | trim | nindent 8 }}
        {{- include "ontopic.objectStore" . | trim | nindent 8 }}
        - {name: USER, value: {{ include "ontopic.name" .root }}-{{ .component }}}
        {{- include "ontopic.env" (dict "component" .component "more" $values.env) | trim | nindent 8 }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      securityContext: {{- include "ontopic.containerSecurity" . | nindent 8 }}
      volumeMounts: {{- include "ontopic.mounts" (dict "root" .root "config" true) | nindent 8 }}
  volumes: {{- include "ontopic.folders" (dict "root" .root "size" $values.stateSize "config" true) | nindent 4 }}
{{- end }}

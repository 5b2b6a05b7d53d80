{{- define "sealign.labels" -}}
app.kubernetes.io/name: sealign
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "sealign.metadata" -}}
name: {{ printf "%s-%s" .root.Release.Name .component | trunc 63 | trimSuffix "-" }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "sealign.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "sealign.image" -}}
image: {{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{- /* Kubernetes would describe services in variables that start like settings: no service links. */ -}}
{{- define "sealign.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sealign.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Settings as variables; a list is separated by commas. */ -}}
{{- define "sealign.settings" -}}
{{- range $name, $value := .settings }}
- name: {{ printf "%s%s" $.prefix (upper $name) }}
  value: {{ kindIs "slice" $value | ternary (join "," $value) (toString $value) | quote }}
{{- end }}
{{- end }}

{{- define "sealign.client.environment" -}}
- {name: SEALIGN_CLIENT_SILO, value: {{ .Values.daemon.silo | quote }}}
- {name: SEALIGN_CLIENT_ENCODER, value: {{ .Values.daemon.encoder | quote }}}
- {name: SEALIGN_CLIENT_TLS_CA, value: /tls/ca.crt}
- {name: SEALIGN_CLIENT_TLS_CERT, value: /tls/tls.crt}
- {name: SEALIGN_CLIENT_TLS_KEY, value: /tls/tls.key}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- if .Values.daemon.siloToken.secretName }}
- name: SEALIGN_CLIENT_SILO_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.daemon.siloToken.secretName | quote }}, key: token}}
{{- end }}
{{- include "sealign.settings" (dict "prefix" "SEALIGN_CLIENT_" "settings" .Values.daemon.settings) }}
{{- end }}

{{- define "sealign.client.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: tls, mountPath: /tls, readOnly: true}
- {name: client, mountPath: /client}
{{- if .Values.daemon.models.existingClaim }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "sealign.client.volumes" -}}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
- name: tls
  secret: {secretName: {{ .Values.daemon.tls.secretName | quote }}, defaultMode: 0440}
- name: client
  {{- if .Values.daemon.maps.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.daemon.maps.existingClaim | quote }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if .Values.daemon.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.daemon.models.existingClaim | quote }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "sealign.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

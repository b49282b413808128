#!/bin/sh
# The alert rules of deploy/prometheus for the Prometheus operator: rules.sh | kubectl apply -f -
# kustomize reads no file outside its folder, and a copy of the rules would grow old.
set -eu
for file in "$(dirname "$0")"/../prometheus/rules/*.yml; do
  cat << HEAD
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: fivescore-$(basename "$file" .yml)
  namespace: fivescore
  labels: {release: prometheus}
spec:
HEAD
  sed 's/^\(.\)/  \1/' "$file"
done

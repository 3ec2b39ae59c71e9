"""Asking and telling the API server, with the cluster's own kubectl."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import LocalClusterError


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with one kubeconfig; to be used inside the cluster's network."""

    program: Path
    kubeconfig: Path

    def finds(self, what: str) -> bool:
        """Whether an object exists."""
        return self._ask("get", what, "--output=name").returncode == 0

    def is_ready(self, what: str) -> bool:
        """Whether an object's condition Ready is true."""
        return self._has_condition("Ready", what, "default")

    def is_available(self, what: str, namespace: str = "default") -> bool:
        """Whether an object's condition Available is true."""
        return self._has_condition("Available", what, namespace)

    def is_rolled_out(self, deployment: str, namespace: str) -> bool:
        """Whether all pods of a deployment are of its present form and available; old ones that still serve are not."""
        found = self.read(f"deployment/{deployment}", namespace)
        told = found["status"]
        pods = told.get("replicas", 0)
        seen: bool = told.get("observedGeneration", 0) >= found["metadata"]["generation"]
        return seen and pods > 0 and told.get("updatedReplicas", 0) == told.get("availableReplicas", 0) == pods

    def read(self, what: str, namespace: str = "default") -> Any:  # noqa: ANN401 - JSON
        """Return an object, or a list of them, as JSON.

        Raises:
            LocalClusterError: the API server refuses or does not answer.
        """
        result = self._ask("get", *what.split(), f"--namespace={namespace}", "--output=json")
        if result.returncode != 0:
            message = f"kubectl get {what}: {result.stderr.strip()}"
            raise LocalClusterError(message)
        return json.loads(result.stdout)

    def apply_directory(self, directory: Path) -> None:
        """Apply all manifests of a directory.

        Raises:
            LocalClusterError: the API server refuses.
        """
        # By the server: the annotation that the client would add is too long for KEDA's definitions.
        self._apply("apply", "--server-side", "--force-conflicts", "-f", str(directory))

    def apply_overlay(self, directory: Path) -> None:
        """Apply a kustomization.

        Raises:
            LocalClusterError: the API server refuses.
        """
        self._apply("apply", "-k", str(directory))

    def apply_text(self, manifests: str) -> None:
        """Apply manifests given as text.

        Raises:
            LocalClusterError: the API server refuses.
        """
        self._apply("apply", "-f", "-", text=manifests)

    def _has_condition(self, condition: str, what: str, namespace: str) -> bool:
        path = f'{{.status.conditions[?(@.type=="{condition}")].status}}'
        result = self._ask("get", what, f"--namespace={namespace}", f"--output=jsonpath={path}")
        return result.returncode == 0 and result.stdout == "True"

    def _apply(self, *arguments: str, text: str | None = None) -> None:
        result = self._ask(*arguments, text=text)
        if result.returncode != 0:
            message = f"kubectl {' '.join(arguments)}: {' '.join(result.stderr.split())[-600:]}"
            raise LocalClusterError(message)

    def _ask(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.kubeconfig.parent)}
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", "--request-timeout=20s", *arguments]
        return subprocess.run(command, env=environment, input=text, capture_output=True, text=True, check=False)

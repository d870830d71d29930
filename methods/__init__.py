"""Mixers, one file a method. They know nothing of runs, YAML or clusters: use them in anyone's training loop."""

from methods.base import Batch, Criterion, Mixed, Mixer, Network, TeacherMixer, build, register

__all__ = ["Batch", "Criterion", "Mixed", "Mixer", "Network", "TeacherMixer", "build", "register"]

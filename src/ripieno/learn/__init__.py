"""Ledger to dataset to predictor to checkpoint to promotion."""

from ripieno.learn.checkpoint import ModelCard, Registry, load_checkpoint
from ripieno.learn.train import Recipe, Trained, analyze_prompts, train

__all__ = ["ModelCard", "Recipe", "Registry", "Trained", "analyze_prompts", "load_checkpoint", "train"]

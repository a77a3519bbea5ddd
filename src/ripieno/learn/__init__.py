"""Learning: from the ledger to a data set, a predictor, a checkpoint and its promotion."""

from ripieno.learn.checkpoint import ModelCard, Registry, load_checkpoint
from ripieno.learn.train import Recipe, Trained, analyze_prompts, train

__all__ = ["ModelCard", "Recipe", "Registry", "Trained", "analyze_prompts", "load_checkpoint", "train"]

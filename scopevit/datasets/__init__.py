"""Data that the toolboxes lack: small scenes with labels for every task."""

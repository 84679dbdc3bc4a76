"""The numbers: counters, histograms, the list of metrics, snapshots. It knows no hot path."""

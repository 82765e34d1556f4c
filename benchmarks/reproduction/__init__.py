"""The figures and claims of five public reports, beside what the studies of a store measure."""

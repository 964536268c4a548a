//! Criterion benches, budgets and the command that measures every figure against what was asked.

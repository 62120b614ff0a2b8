//! Zone and replica choice: smooth weighted and strict round-robin, ejection. Connects to nothing.

//! State files: written aside, flushed, then renamed, so that a crash leaves the old one or the new.

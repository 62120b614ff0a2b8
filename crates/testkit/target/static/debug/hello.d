/work/wt/land/crates/testkit/target/static/debug/hello: /work/wt/land/examples/hello/src/main.rs

/work/wt/land/crates/testkit/target/static/debug/deps/hello-88244f134272fbd8.d: examples/hello/src/main.rs

/work/wt/land/crates/testkit/target/static/debug/deps/hello-88244f134272fbd8: examples/hello/src/main.rs

examples/hello/src/main.rs:

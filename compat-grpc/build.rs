//! Compiles the protobuf schemas in pure Rust, so that no machine needs `protoc`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Several releases share a package: each schema gets a folder of its own.
    for (schema, folder) in [
        ("pubsub_v04", "p"),
        ("dataplane_v06", "d6"),
        ("dataplane_v07", "d7"),
        ("dataplane_v20", "d20"),
    ] {
        let schema = format!("proto/{schema}.proto");
        println!("cargo:rerun-if-changed={schema}");
        let out = PathBuf::from(std::env::var("OUT_DIR")?).join(folder);
        std::fs::create_dir_all(&out)?;
        let descriptors = protox::compile([schema], ["proto"])?;
        // Only the clients: the node serves the method on the bytes (see `service`).
        tonic_prost_build::configure()
            .build_server(false)
            .bytes(".")
            .out_dir(out)
            .compile_fds(descriptors)?;
    }
    compile_control_plane()
}

/// The control plane's two schemas: their packages refer to each other, so they share a folder.
fn compile_control_plane() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = ["grpc_api/grpc_api.proto", "controlplane/v1/controlplane.proto"];
    for schema in schemas {
        println!("cargo:rerun-if-changed=proto/{schema}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("control");
    std::fs::create_dir_all(&out)?;
    let descriptors = protox::compile(schemas, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(out)
        .include_file("mod.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

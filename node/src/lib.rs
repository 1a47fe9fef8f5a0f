//! A data node: `storage` and `engine` behind `proto::DataNode`.

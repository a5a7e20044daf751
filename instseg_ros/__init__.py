"""Live 3D instance segmentation of the maps robots build."""

# From the repository root the source folder would hide the generated instseg_ros.msg and .srv.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

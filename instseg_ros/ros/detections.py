"""What is said in vision_msgs: the class names, and instances as detections. Importable only where vision_msgs is installed."""

__all__ = ["Detection3DArray", "LabelInfo", "detections_to_msg", "label_info_msg"]

from collections.abc import Iterable, Mapping

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from instseg_ros.instance import Instance
from instseg_ros.labels import class_to_nyu40
from instseg_ros.oriented_box import OrientedBox


def label_info_msg(header: Header, names: Mapping[int, str]) -> LabelInfo:
    """The names of label ids."""
    classes = [VisionClass(class_id=number, class_name=name) for number, name in names.items()]
    return LabelInfo(header=header, class_map=classes, threshold=0.0)


def detections_to_msg(header: Header, instances: Iterable[Instance], boxes: Mapping[int, OrientedBox]) -> Detection3DArray:
    """Instances with their boxes by id: `id` is the instance's, `class_id` the label id as in `label_info_msg`, both as text."""
    return Detection3DArray(header=header, detections=[_detection(header, one, boxes[one.id]) for one in instances])


def _detection(header: Header, one: Instance, box: OrientedBox) -> Detection3D:
    (x, y, z), (dx, dy, dz) = box.center_m.tolist(), box.size_m.tolist()
    qx, qy, qz, qw = box.quaternion_xyzw()
    pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = str(class_to_nyu40(np.array(one.class_index)).item())
    result.hypothesis.score = float(one.score)
    result.pose.pose = pose
    bbox = BoundingBox3D(center=pose, size=Vector3(x=dx, y=dy, z=dz))
    return Detection3D(header=header, results=[result], bbox=bbox, id=str(one.id))

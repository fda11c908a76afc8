"""Write small image sets as TFDS would, by the libraries that read them: no TensorFlow, no network."""

import json
from pathlib import Path

import numpy as np

IMAGE, LABEL = (
    f"tensorflow_datasets.core.features.{name}" for name in ("image_feature.Image", "class_label_feature.ClassLabel")
)
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def write_set(data_dir: Path, name: str, version: str, classes: int, splits: dict[str, tuple]) -> Path:
    """Write <data_dir>/<name>/<version> and return it.

    Args:
      data_dir: the folder of all sets.
      name: of the catalogue, such as emnist/balanced.
      version: such as 3.1.0.
      classes: what the metadata say.
      splits: images uint8[n, height, width, channels] and labels int[n] by split.
    """
    folder, builder = data_dir / name / version, name.split("/")[0]
    folder.mkdir(parents=True)
    for split, (x, y) in splits.items():
        write_records(folder / f"{builder}-{split}.array_record-00000-of-00001", x, y)
    parts = [
        {"name": split, "filepathTemplate": TEMPLATE, "numBytes": "1", "shardLengths": [str(len(y))]}
        for split, (_, y) in splits.items()
    ]
    about = {"name": builder, "version": version, "fileFormat": "array_record", "splits": parts}
    about |= {"configName": name.split("/")[1]} if "/" in name else {}
    shape = [str(size) for size in next(iter(splits.values()))[0].shape[1:]]
    features = {
        "image": {"image": {"dtype": "uint8", "shape": {"dimensions": shape}}, "pythonClassName": IMAGE},
        "label": {"classLabel": {"numClasses": str(classes)}, "pythonClassName": LABEL},
    }
    whole = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    (folder / "dataset_info.json").write_text(json.dumps(about))
    (folder / "features.json").write_text(
        json.dumps({"featuresDict": {"features": features}, "pythonClassName": whole})
    )
    return folder


def write_records(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """One record an example: its image as PNG and its label."""
    import cv2
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for image, label in zip(x, y, strict=True):
        example = tf_example_pb2.Example()
        png = cv2.imencode(".png", image[..., ::-1])[1]  # OpenCV has blue first
        example.features.feature["image"].bytes_list.value.append(png.tobytes())
        example.features.feature["label"].int64_list.value.append(int(label))
        writer.write(example.SerializeToString())
    writer.close()

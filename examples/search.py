"""A folder of pictures, searched by picture: python examples/search.py FOLDER QUERY

Makes an index beside the folder, or brings the one that is there up to date, and prints the ten nearest pictures.
"""

import sys
from pathlib import Path

from vggtransfer import ImageIndex
from vggtransfer.retrieval.embedder import Embedder

folder, query = map(Path, sys.argv[1:3])
place = folder.with_name(f"{folder.name}.index")
if (place / "index.yaml").exists():  # a build that was stopped goes on
    index = ImageIndex.open(place)
    index.sync()
else:
    index = ImageIndex.build(folder, out=place, embedder=Embedder("vgg16_bn_x0_25"))
for found in index.search(query, k=10):
    print(f"{found.score:.3f}  {found.label:<12} {found.path}")

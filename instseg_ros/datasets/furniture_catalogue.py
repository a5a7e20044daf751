"""Which models of the CC0 catalogue are used, and as what."""

__all__ = ["KIND_CLASS", "MODEL_KINDS"]

KIND_CLASS = {
    "dining_chair": "chair", "office_chair": "chair", "stool": "chair", "armchair": "chair", "sofa": "sofa", "bed": "bed",
    "dining_table": "table", "round_table": "table", "coffee_table": "table", "side_table": "table", "desk": "desk",
    "low_cabinet": "cabinet", "wardrobe": "cabinet", "tv_stand": "cabinet", "kitchen_tall": "cabinet",
    "wall_cabinet": "cabinet",
    "bookshelf": "bookshelf", "refrigerator": "refrigerator", "counter": "counter", "toilet": "toilet", "sink": "sink",
    "nightstand": "otherfurniture", "floor_lamp": "otherfurniture", "table_lamp": "otherfurniture", "bin": "otherfurniture",
    "plant": "otherfurniture", "small_plant": "otherfurniture", "tv": "otherfurniture", "box": "otherfurniture",
    "fan": "otherfurniture",
    "speaker": "otherfurniture", "radiator": "otherfurniture", "oven": "otherfurniture", "clutter": "",
}
"""Kind a room asks for -> ScanNet class ('' = none)."""

MODEL_KINDS = {
    "armchair": "office_chair", "oakChair": "dining_chair", "plasticChair": "dining_chair", "sillaBlanca": "dining_chair",
    "chair": "dining_chair", "antiqueChair": "dining_chair", "chairWithCushion": "dining_chair", "chair2": "dining_chair",
    "designChair": "armchair", "osakaChair": "dining_chair", "thonet": "dining_chair", "silla2": "stool", "stool": "stool",
    "stool2": "stool", "foldingChair": "stool", "pianoBench": "stool", "armchair2": "armchair", "modernArmchair": "armchair",
    "winchesterArmchair": "armchair",
    "L_shaped_sofa": "sofa", "sofa": "sofa", "couch": "sofa", "couch2": "sofa", "sofa2": "sofa", "winchesterSofa": "sofa",
    "bed1": "bed", "bed2": "bed", "bedWithTexture": "bed", "bed3": "bed",
    "oakTable": "round_table", "tableWithTablecloth": "round_table", "table": "dining_table",
    "desk": "desk", "lbDesk": "desk", "technicalTable1": "desk", "technicalTable2": "desk",
    "wardrobeWithSlidingDoors": "wardrobe", "cupboard": "wardrobe", "televisionCabinet": "wardrobe",
    "highCabinet": "kitchen_tall",
    "lowerCabinet": "low_cabinet", "drawersCabinet": "low_cabinet", "lowerCornerCabinet": "low_cabinet",
    "glassDoorCabinet": "wall_cabinet", "upperCabinet": "wall_cabinet", "smallUpperCabinet": "wall_cabinet",
    "bookcase": "bookshelf", "shelves": "bookshelf", "verticalShelves": "bookshelf",
    "refrigerator": "refrigerator", "largeFridge": "refrigerator", "islandExtension": "counter", "toiletsUnit": "toilet",
    "washbasin": "sink",
    "bedsideTable2": "nightstand", "desklamp": "table_lamp", "led_tv": "tv", "speaker2": "speaker", "speaker3": "speaker",
    "tableFan": "fan", "riggedFan": "fan", "radiator": "radiator", "radiator2": "radiator", "radiator3": "radiator",
    "dustbin": "bin",
    "decorativePlant": "plant", "plant": "plant", "littlePlant": "small_plant", "cactus": "small_plant",
    "orchids": "small_plant",
    "augalas": "small_plant", "box": "box", "ammoBox": "box", "crate": "box", "barrel": "box", "teddyBear": "box",
    "oven": "oven", "doubleOven": "oven", "kitchenaid": "small_plant",
    "caffe_final": "clutter", "plasticCup": "clutter", "tetrapak": "clutter", "yogurtBottle": "clutter", "beerGlass": "clutter",
    "bread": "clutter", "handbag": "clutter", "coffeeBrewer": "clutter", "headphones": "clutter", "kalender": "clutter",
    "butter": "clutter",
    "cosmeticsPot": "clutter", "woodToy": "clutter", "knifeStandSwap": "clutter",
}
"""Model file of the catalogue (without .obj) -> kind. What is not named (vehicles, exterior, animals, ...) is not used."""

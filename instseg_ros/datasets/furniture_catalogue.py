"""Which models of the catalogues are used, and as what."""

__all__ = ["CATALOGUE", "KIND_CLASS", "MODEL_KINDS", "TRAINING_CATALOGUES", "model_kinds"]

CATALOGUE = "BlendSwap-CC-0.sh3f"
"""File of the catalogue that rooms of all splits are furnished from."""

KIND_CLASS = {
    "dining_chair": "chair", "office_chair": "chair", "stool": "chair", "armchair": "chair", "sofa": "sofa", "bed": "bed",
    "dining_table": "table", "round_table": "table", "coffee_table": "table", "side_table": "table", "desk": "desk",
    "low_cabinet": "cabinet", "wardrobe": "cabinet", "tv_stand": "cabinet", "kitchen_tall": "cabinet",
    "wall_cabinet": "cabinet",
    "bookshelf": "bookshelf", "refrigerator": "refrigerator", "counter": "counter", "toilet": "toilet", "sink": "sink",
    "bathtub": "bathtub", "curtain": "curtain", "monitor": "otherfurniture",
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
"""Model file of the CC0 catalogue (without .obj) -> kind. What is not named (vehicles, exterior, animals, ...) is not used."""

TRAINING_CATALOGUES = {
    "BlendSwap-CC-BY.sh3f": {
        "dining_chair": "cafe_set_mota_chair cafe_set_tonon_chair chairWithCushion childChair ella_chair_f foldingChair plaidChair "
        "kitchenChair chair3 classSeat",
        "armchair": "leaf_chair armchair1 fotel armChair2", "sofa": "cornerSofa sofa3 couch3", "bed": "bunkBed juniorBed lettoCloud",
        "round_table": "cafe_set_mota_table", "side_table": "cafe_set_tonon_table", "coffee_table": "coffeeTable",
        "dining_table": "table", "desk": "biurko3 simpleDesk",
        "low_cabinet": "kitchenDrawersCabinet kitchenLowerCabinet kitchenSmallLowerCabinet dresserWithDrawers chest",
        "tv_stand": "tvStand", "wall_cabinet": "kitchenSmallUpperCabinet kitchenUpperCabinet kitchenGlassDoorCabinet",
        "wardrobe": "wardrobe wardrobe2", "bookshelf": "bookcase", "counter": "kitchenIsland", "oven": "largeStove washing_machine",
        "toilet": "toilets_unit_jay_hardy modernToilet", "sink": "washbasin_jay_hardy", "bathtub": "bath_jay_hardy",
        "nightstand": "bedsideTable", "radiator": "bathroomRadiator modernRadiator radiatorAndTowels",
        "plant": "decorativePlant mediumIndoorPlant spatifilum", "small_plant": "luckyBamboo spider_plant tulip tulips white_lily",
        "table_lamp": "lamp campingLamp", "box": "suitcase gift sef-kasa backpack",
        "clutter": "laptop book boiler coffee_cup glass kitchenblender microwave radio espressokettle coffeePress mp3Station "
        "wirelessOfficePhone3 utensilsPot carrito-de-madera breadBox",
    },
    "KatorLegaz.sh3f": {
        "dining_chair": "dining-chair cafe-chair", "office_chair": "office-chair", "stool": "bar-stool bench",
        "armchair": "mid-century-chair chair-ottoman", "sofa": "mid-century-bench-sofa mid-century-sofa",
        "dining_table": "folding-table glass-dining-table", "round_table": "cafe-table", "desk": "custom-desk",
        "bookshelf": "full-bookcase", "low_cabinet": "filing-cabinet", "refrigerator": "fridge", "oven": "propane-stove",
        "bin": "bullet-trash-can recycling-bin", "table_lamp": "pedestal-vase-lamp", "box": "trunk-large",
        "monitor": "apple-imac-1998", "clutter": "bowl coffee-maker coffee-mug oil-servers apple-ibook-2001",
    },
    "Scopia.sh3f": {
        "dining_chair": "chair3 chair4 chair tubular_chair white_kitchen_chair silla_teca", "office_chair": "office_chair kids_desk_chair",
        "stool": "bar_chair children_chair baby_high_chair",
        "armchair": "armchair3 armchair armchair1 armchair2 modern_armchair rattanArmchair ryokanChair ext_chair puff",
        "sofa": "clear_sofa simple_sofa beige_sofa_2seats beige_sofa burlap_sofa leather_sofa sofa_white_beige rattanSofa "
        "convertible-sofa-BZ-closed",
        "bed": "bed1 children_bed captains-bed hospital-bed day_bed_frame",
        "dining_table": "black_table table4 table3 metal_glass_table white_kitchen_table wooden_office_alder_table "
        "wooden_office_pear_table_rect wooden_table_office glass_table_office desk_table bar_table",
        "desk": "kids_desk_table kids_wooden_desk",
        "coffee_table": "saloon_table coffee_table coffee-table2 table_wood_and_iron rattanTable living_room_table children_table",
        "wardrobe": "wardrobe1 office_box office_furniture1 dining_room", "bookshelf": "kids_shelves", "low_cabinet": "changing-table",
        "oven": "clothes_washing_machine dryer_machine", "bathtub": "corner_bathtub", "curtain": "curtain",
        "plant": "maceta", "small_plant": "bonsai-tree calla_lily_with_roses", "tv": "tv", "monitor": "apple_pc",
        "table_lamp": "desk_lamp1 desk_lamp2 little_lamp1 little_lamp2 little_lamp3 table_lamp livingroom_lamp1",
        "floor_lamp": "living_lamp", "box": "cardboard-box open-cardboard-box clothes-basket doll-house aquarium",
        "clutter": "bowl old_jar pottery vase1 vase2 vase3 jar phone teapot coffee_machine toaster cooker spiceTower apples dvd "
        "penbox bowlWithFruits folded_clothes playstation4 inkjet_and_scanner_printer mini_stereo",
    },
}
"""File of a catalogue whose models (CC BY 3.0) furnish training and validation rooms, never test rooms -> kind -> its models.

Left out are models that plainly show a style which procedural furniture keeps for test rooms: trestles, corner desks, ..."""


def model_kinds(file_name: str) -> dict[str, str]:
    """Model -> kind, of the catalogue in a file of this name; of the CC0 catalogue if the name is not known."""
    kinds = TRAINING_CATALOGUES.get(file_name)
    return MODEL_KINDS if kinds is None else {model: kind for kind, models in kinds.items() for model in models.split()}

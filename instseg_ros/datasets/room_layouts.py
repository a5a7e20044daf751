"""What stands in a living room, a bedroom, an office, a kitchen, a bathroom, and how it stands together."""

__all__ = ["LAYOUTS", "Decorator", "Draw"]

from collections.abc import Callable

import numpy as np

from instseg_ros.datasets.floor_plan import Wall
from instseg_ros.datasets.placement import Arranger, Placement
from instseg_ros.datasets.procedural_kitchen import kitchen_run
from instseg_ros.datasets.shapes import FurnitureModel

Rng = np.random.Generator
Draw = Callable[[str, Rng], FurnitureModel]

WALL_EXTRAS = (
    "low_cabinet", "bookshelf", "wardrobe", "low_cabinet", "dining_chair", "armchair", "plant", "floor_lamp", "bin", "box",
    "radiator", "speaker",
    "side_table", "desk", "refrigerator", "bookshelf", "fan", "nightstand", "stool", "sofa", "dining_chair", "oven")
RARE = ("bed", "toilet", "bathtub", "sink", "counter", "refrigerator")
FREE_EXTRAS = ("dining_chair", "armchair", "stool", "box", "plant", "office_chair", "side_table", "coffee_table", "bin", "fan",
    "dining_table", "stool")


class Decorator:
    """Furnishes the regions of a plan with an `Arranger` and a source of models."""

    def __init__(self, arranger: Arranger, draw: Draw, rng: Rng) -> None:
        self.at = arranger
        self.draw = draw
        self.rng = rng

    def chance(self, share: float) -> bool:
        """True in this share of the calls."""
        return bool(self.rng.uniform() < share)

    def model(self, *kinds: str) -> FurnitureModel:
        """A model of one of the kinds."""
        return self.draw(kinds[self.rng.integers(len(kinds))], self.rng)

    def clutter(self, support: Placement | None, most: int) -> None:
        """Up to so many small things on a top."""
        if support is not None:
            for _ in range(self.rng.integers(0, most + 1)):
                self.at.on(self.model("clutter"), support, turn=self.rng.uniform(-0.6, 0.6))

    def curtains(self, region: int) -> None:
        """One or two curtains at a wall, ending below the ceiling."""
        walls = self.at.walls(region)
        wall = walls[self.rng.integers(len(walls))]
        for _ in range(self.rng.integers(1, 3)):
            model = self.model("curtain")
            low = max(0.01, self.at.plan.height_m - 0.12 - float(model.size_m[2]))
            self.at.at_wall(model, region, 0.01, low, wall)

    def seats_around(self, table: Placement, most: int, round_table: bool) -> None:
        """Chairs at a table: tucked under it, touching it or pulled out; most of them alike."""
        w, d, _ = table.model.size_m
        common = self.model("dining_chair")
        spots: list[tuple[float, float, float]] = []
        if round_table:
            first = self.rng.uniform(0, 2 * np.pi)
            count = min(most, int(np.pi * w / 0.75))
            for a in first + np.arange(count) * 2 * np.pi / max(count, 1):
                spots.append((np.sin(a) * w / 2, -np.cos(a) * d / 2, a))
        else:
            for side in (0.0, np.pi):
                for x in (np.arange(n := max(1, int(w / 0.62))) + 0.5) / n * w - w / 2:
                    spots.append((x * np.cos(side), -np.cos(side) * d / 2, side))
            for side in (np.pi / 2, -np.pi / 2):
                spots.append((np.sin(side) * w / 2, 0.0, side))
        for k in self.rng.permutation(len(spots))[:most]:
            x, y, a = spots[k]
            chair = common if self.chance(0.8) else self.model("dining_chair", "stool")
            self.tuck(chair, table, np.array([x, y]), a)

    def tuck(self, chair: FurnitureModel, table: Placement, edge: np.ndarray, turn: float,
            most: float = 0.55) -> Placement | None:
        """A chair before a point of the table's edge, facing it (turn 0 = looking along the table's +y)."""
        deep = float(chair.size_m[1])
        for _ in range(3):
            depth = self.rng.uniform(-0.3, most * deep) if self.chance(0.8) else 0.0
            away = np.array([np.sin(turn), -np.cos(turn)]) * (deep / 2 - depth)
            jitter = self.rng.normal(0, 0.07) if depth > -0.1 else self.rng.normal(0, 0.35)
            spot = edge + away
            done = self.at.relative(chair, table, spot[0], spot[1], turn + jitter, touching=True)
            if done:
                return done
        return None

    def desk_place(self, region: int) -> None:
        """A desk at the wall with a chair, screens and what lies about."""
        desk = self.at.at_wall(self.model("desk"), region, self.rng.uniform(0, 0.05)) or self.at.anywhere(self.model("desk"),
            region)
        if desk is None:
            return
        self.tuck(self.model("office_chair", "office_chair", "dining_chair"), desk,
            np.array([self.rng.uniform(-0.15, 0.15), desk.model.size_m[1] / 2]), np.pi)
        for _ in range(self.rng.integers(0, 3)):
            self.at.on(self.model("monitor"), desk, self.rng.uniform(-0.7, 0.7), -0.5, self.rng.normal(0, 0.15))
        if self.chance(0.4):
            self.at.on(self.model("table_lamp", "small_plant"), desk)
        self.clutter(desk, 5)
        if self.chance(0.35):
            self.at.beside(self.model("low_cabinet", "nightstand", "desk", "bookshelf"), desk, self.rng.uniform(0, 0.03))
        if self.chance(0.5):
            self.at.at_wall(self.model("bin"), region, self.rng.uniform(0, 0.1))

    def living(self, region: int) -> None:
        """A sofa facing a coffee table and a screen, armchairs, shelves."""
        sofa = self.at.at_wall(self.model("sofa"), region, self.rng.uniform(0, 0.2))
        if sofa:
            w, d, _ = sofa.model.size_m
            if self.chance(0.8):
                table = self.model("coffee_table")
                done = self.at.relative(table, sofa, self.rng.uniform(-0.2, 0.2),
                    d / 2 + table.size_m[1] / 2 + self.rng.uniform(0.0, 0.5), self.rng.normal(0, 0.08))
                self.clutter(done, 4)
            stand = self.model("tv_stand", "tv_stand", "low_cabinet")
            place = self.at.relative(stand, sofa, self.rng.uniform(-0.4, 0.4), d / 2 + self.rng.uniform(1.4, 2.6),
                np.pi) if self.chance(0.3) else None
            place = place or self.at.at_wall(stand, region)
            if place:
                self.at.on(self.model("tv"), place, self.rng.uniform(-0.3, 0.3), 0.0)
                self.clutter(place, 2)
                if self.chance(0.5):
                    self.at.beside(self.model("speaker", "plant", "floor_lamp", "bookshelf"), place, self.rng.uniform(0, 0.05))
            if self.chance(0.6):
                side = self.at.beside(self.model("side_table", "floor_lamp", "plant", "nightstand"), sofa,
                    self.rng.uniform(0, 0.05))
                if side and self.chance(0.7):
                    self.at.on(self.model("table_lamp", "small_plant"), side, 0.0, 0.0)
            for _ in range(self.rng.integers(0, 3)):
                s = (-1, 1)[self.rng.integers(2)]
                turn = np.pi - s * self.rng.uniform(0.3, 1.6)
                self.at.relative(self.model("armchair"), sofa, s * (w / 2 + self.rng.uniform(0.1, 0.6)),
                    d / 2 + self.rng.uniform(0.4, 1.4), turn)
        if self.chance(0.7):
            shelf = self.at.at_wall(self.model("bookshelf", "low_cabinet"), region)
            if shelf and self.chance(0.5):
                self.at.beside(self.model("bookshelf", "low_cabinet", "armchair"), shelf, self.rng.uniform(0, 0.02))
        self.curtains(region)

    def bedroom(self, region: int) -> None:
        """A bed between nightstands, a wardrobe, a chest, perhaps a desk."""
        for _ in range(2 if self.chance(0.15) else 1):
            bed = self.at.at_wall(self.model("bed"), region, self.rng.uniform(0, 0.06), tries=20)
            if bed:
                for _ in range(self.rng.integers(1, 3)):
                    stand = self.at.beside(self.model("nightstand", "nightstand", "nightstand", "side_table"), bed,
                        self.rng.uniform(0, 0.12))
                    if stand and self.chance(0.7):
                        self.at.on(self.model("table_lamp"), stand, 0.0, 0.0)
                    self.clutter(stand, 2)
        wardrobe = self.at.at_wall(self.model("wardrobe"), region)
        if wardrobe and self.chance(0.4):
            self.at.beside(self.model("wardrobe", "bookshelf", "low_cabinet"), wardrobe, self.rng.uniform(0, 0.01))
        if self.chance(0.7):
            chest = self.at.at_wall(self.model("low_cabinet", "bookshelf"), region)
            if chest and chest.model.size_m[2] < 1.3:
                self.at.on(self.model("tv", "small_plant", "table_lamp", "box"), chest)
                self.clutter(chest, 3)
        if self.chance(0.35):
            self.desk_place(region)
        if self.chance(0.5):
            self.at.at_wall(self.model("armchair", "dining_chair", "floor_lamp"), region, self.rng.uniform(0, 0.1))
        self.curtains(region)

    def office(self, region: int) -> None:
        """Desks, sometimes side by side or face to face, cabinets and shelves."""
        for _ in range(self.rng.integers(1, 5)):
            self.desk_place(region)
        first = self.at.at_wall(self.model("bookshelf", "low_cabinet", "wardrobe"), region)
        for _ in range(self.rng.integers(0, 3)):
            if first:
                first = self.at.beside(self.model("bookshelf", "low_cabinet", "wardrobe"), first, self.rng.uniform(0, 0.02))
        if self.chance(0.4):
            table = self.at.anywhere(self.model("round_table"), region)
            if table:
                self.seats_around(table, int(self.rng.integers(2, 5)), True)
                self.clutter(table, 3)
        if self.chance(0.4):
            self.curtains(region)

    def kitchen(self, region: int) -> None:
        """A run of cabinets with counter, sink and fridge, cabinets above it, and a table with chairs."""
        walls = sorted(self.at.walls(region), key=lambda w: -w.length_m)
        wall = walls[self.rng.integers(min(2, len(walls)))]
        length = min(wall.length_m * self.rng.uniform(0.45, 0.8), self.rng.uniform(1.4, 3.6))
        parts = kitchen_run(self.rng, length)
        run = self.kitchen_parts(parts, wall, region, length)
        if run is not None:
            for kind, share in (("refrigerator", 0.85), ("oven", 0.35), ("kitchen_tall", 0.4)):
                if self.chance(share):
                    run_end = self.at.placed[-1] if self.chance(0.4) else run
                    self.at.beside(self.model(kind), run_end, self.rng.uniform(0, 0.02))
            for _ in range(self.rng.integers(0, 3)):
                self.at.at_wall(self.model("wall_cabinet"), region, 0.0, self.rng.uniform(1.35, 1.5), wall)
            self.clutter(run, 6)
        self.dining(region)
        if self.chance(0.3):
            self.at.anywhere(self.model("counter"), region)
        if self.chance(0.6):
            self.at.at_wall(self.model("bin"), region, self.rng.uniform(0, 0.05))
        if self.chance(0.3):
            self.curtains(region)

    def kitchen_parts(self, parts: list[FurnitureModel], wall: Wall, region: int, length: float) -> Placement | None:
        """Puts the parts of a run in one place: the counter stands for all of them in the check for free space."""
        counter = parts[0]
        low, high = counter.vertices.min(axis=0), counter.vertices.max(axis=0)
        shift = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0.0], np.float32)
        moved = [FurnitureModel(p.name, p.kind, p.class_name, p.vertices - shift, p.faces, p.face_colors, p.support_z_m)
            for p in parts]
        stand_in = FurnitureModel(**{**moved[0].__dict__,
            "vertices": np.concatenate([moved[0].vertices, [[0, 0, 0]]]).astype(np.float32)})
        run = self.at.at_wall(stand_in, region, 0.0, 0.0, wall, tries=20)
        if run is not None:
            self.at.on_top += [Placement(p, run.x, run.y, run.yaw) for p in moved[1:] if p.kind != "kitchen_base"]
            self.at.attached += [Placement(p, run.x, run.y, run.yaw) for p in moved[1:] if p.kind == "kitchen_base"]
        return run

    def dining(self, region: int) -> None:
        """A table with chairs around it."""
        round_table = self.chance(0.35)
        table = self.at.anywhere(self.model("round_table" if round_table else "dining_table"), region, tries=20)
        if table is None:
            table = self.at.at_wall(self.model("round_table" if round_table else "dining_table"), region)
        if table:
            self.seats_around(table, int(self.rng.integers(2, 8)), round_table)
            self.clutter(table, 5)

    def bathroom(self, region: int) -> None:
        """Toilet, washbasin or vanity, bathtub, cabinet."""
        self.at.at_wall(self.model("toilet"), region, 0.0, tries=20)
        if self.chance(0.85):
            self.at.at_wall(self.model("bathtub"), region, 0.0, tries=20)
        basin = self.at.at_wall(self.model("sink"), region)
        if basin and self.chance(0.3):
            self.at.beside(self.model("sink"), basin, self.rng.uniform(0.02, 0.2))
        if self.chance(0.35):
            walls = self.at.walls(region)
            length = self.rng.uniform(0.8, 1.6)
            self.kitchen_parts(kitchen_run(self.rng, length), walls[self.rng.integers(len(walls))], region, length)
        for kind in ("low_cabinet", "bin", "wardrobe", "radiator", "stool"):
            if self.chance(0.45):
                self.at.at_wall(self.model(kind), region)
        if self.chance(0.4):
            self.curtains(region)

    def mixed(self, region: int) -> None:
        """Anything beside anything, so that the network does not lean on the usual company."""
        for _ in range(self.rng.integers(2, 5)):
            first = self.at.at_wall(self.model(*WALL_EXTRAS, *RARE, *RARE), region)
            if first and self.chance(0.5):
                self.at.beside(self.model(*WALL_EXTRAS), first, self.rng.uniform(0, 0.03))
        self.dining(region)
        self.desk_place(region)
        if self.chance(0.5):
            self.curtains(region)

    def extras(self, region: int, least: int, most: int, fullest: float = 0.42) -> None:
        """Single pieces until there are enough or the floor is full."""
        target = int(self.rng.integers(least, most + 1))
        for _ in range(40):
            if len(self.at.placed) >= target or self.at.covered() > fullest:
                return
            if self.chance(0.65):
                one = self.at.at_wall(self.model(*WALL_EXTRAS), region, self.rng.uniform(0, 0.08), tries=6)
                if one and 0.3 < one.model.support_z_m < 1.3 and one.model.class_name != "chair":
                    self.clutter(one, 2)
                    if self.chance(0.3):
                        self.at.on(self.model("box", "small_plant", "table_lamp"), one)
            else:
                self.at.anywhere(self.model(*FREE_EXTRAS), region, tries=6)


LAYOUTS: dict[str, Callable[[Decorator, int], None]] = {
    "living": Decorator.living, "bedroom": Decorator.bedroom, "office": Decorator.office, "kitchen": Decorator.kitchen,
    "bathroom": Decorator.bathroom, "mixed": Decorator.mixed,
}
"""Room type -> what furnishes a region with it."""

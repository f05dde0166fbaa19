"""True and false statements, built from a table of facts.

Each line of a table contains two facts, whose values are swapped to make the false
statements. The line::

    France, Paris <> Japan, Tokyo

gives two true statements and two false ones: the capital of France is Paris, that of
Japan is Tokyo, that of France is Tokyo, that of Japan is Paris. Each word is therefore
as frequent in true statements as in false ones, so that no word gives the answer away.
The statements of a line are a group, which must stay on one side of a split. Otherwise,
a probe could be tested on facts that it has seen in training.
"""

from collections.abc import Iterator

import pandas as pd

COUNTRIES = """
country, capital, language, currency, continent
France, Paris, French, euro, Europe <> Japan, Tokyo, Japanese, yen, Asia
Germany, Berlin, German, euro, Europe <> Egypt, Cairo, Arabic, pound, Africa
Italy, Rome, Italian, euro, Europe <> Brazil, Brasilia, Portuguese, real, South America
Spain, Madrid, Spanish, euro, Europe <> Thailand, Bangkok, Thai, baht, Asia
Portugal, Lisbon, Portuguese, euro, Europe <> South Korea, Seoul, Korean, won, Asia
Russia, Moscow, Russian, ruble, Europe <> Peru, Lima, Spanish, sol, South America
Greece, Athens, Greek, euro, Europe <> Vietnam, Hanoi, Vietnamese, dong, Asia
Poland, Warsaw, Polish, zloty, Europe <> Iran, Tehran, Persian, rial, Asia
Hungary, Budapest, Hungarian, forint, Europe <> Laos, Vientiane, Lao, kip, Asia
Sweden, Stockholm, Swedish, krona, Europe <> Nepal, Kathmandu, Nepali, rupee, Asia
Norway, Oslo, Norwegian, krone, Europe <> Morocco, Rabat, Arabic, dirham, Africa
Austria, Vienna, German, euro, Europe <> Saudi Arabia, Riyadh, Arabic, riyal, Asia
Finland, Helsinki, Finnish, euro, Europe <> Bangladesh, Dhaka, Bengali, taka, Asia
Ireland, Dublin, English, euro, Europe <> Algeria, Algiers, Arabic, dinar, Africa
Turkey, Ankara, Turkish, lira, Asia <> Chile, Santiago, Spanish, peso, South America
Croatia, Zagreb, Croatian, euro, Europe <> China, Beijing, Chinese, yuan, Asia
"""

ELEMENTS = """
element, symbol, state
gold, Au, solid <> oxygen, O, gas
silver, Ag, solid <> helium, He, gas
iron, Fe, solid <> nitrogen, N, gas
copper, Cu, solid <> hydrogen, H, gas
lead, Pb, solid <> neon, Ne, gas
tin, Sn, solid <> chlorine, Cl, gas
zinc, Zn, solid <> argon, Ar, gas
nickel, Ni, solid <> fluorine, F, gas
aluminum, Al, solid <> krypton, Kr, gas
tungsten, W, solid <> xenon, Xe, gas
uranium, U, solid <> radon, Rn, gas
"""

ANIMALS = """
animals, class
dogs, mammals <> eagles, birds
cats, mammals <> bees, insects
horses, mammals <> sharks, fish
cows, mammals <> crocodiles, reptiles
elephants, mammals <> penguins, birds
whales, mammals <> salmon, fish
dolphins, mammals <> tuna, fish
bats, mammals <> owls, birds
mice, mammals <> ants, insects
monkeys, mammals <> parrots, birds
kangaroos, mammals <> lizards, reptiles
rabbits, mammals <> frogs, amphibians
pigeons, birds <> butterflies, insects
ducks, birds <> turtles, reptiles
swans, birds <> beetles, insects
snakes, reptiles <> trout, fish
"""

BOOKS = """
book, author
Hamlet, William Shakespeare <> Don Quixote, Miguel de Cervantes
Pride and Prejudice, Jane Austen <> War and Peace, Leo Tolstoy
Oliver Twist, Charles Dickens <> Moby Dick, Herman Melville
Frankenstein, Mary Shelley <> The Odyssey, Homer
Dracula, Bram Stoker <> Faust, Johann Wolfgang von Goethe
Animal Farm, George Orwell <> The Hobbit, J. R. R. Tolkien
The Divine Comedy, Dante Alighieri <> Madame Bovary, Gustave Flaubert
Crime and Punishment, Fyodor Dostoevsky <> Jane Eyre, Charlotte Bronte
The Great Gatsby, F. Scott Fitzgerald <> The Trial, Franz Kafka
Tom Sawyer, Mark Twain <> Treasure Island, Robert Louis Stevenson
Robinson Crusoe, Daniel Defoe <> The Jungle Book, Rudyard Kipling
Gulliver's Travels, Jonathan Swift <> Brave New World, Aldous Huxley
"""

OPPOSITES = """
word, opposite
hot, cold <> big, small
up, down <> rich, poor
fast, slow <> happy, sad
early, late <> strong, weak
young, old <> wet, dry
full, empty <> loud, quiet
alive, dead <> near, far
left, right <> open, closed
true, false <> clean, dirty
war, peace <> buy, sell
love, hate <> north, south
push, pull <> black, white
"""

TABLES = (COUNTRIES, ELEMENTS, ANIMALS, BOOKS, OPPOSITES)

TEMPLATES = {
    "capital": (
        "The capital of {country} is {capital}.",
        "{capital} is the capital city of {country}.",
    ),
    "language": (
        "The main language of {country} is {language}.",
        "Most people in {country} speak {language}.",
    ),
    "currency": (
        "The currency of {country} is the {currency}.",
        "People in {country} pay with the {currency}.",
    ),
    "continent": (
        "{country} is a country in {continent}.",
        "If you travel to {country}, you travel to {continent}.",
    ),
    "symbol": (
        "The chemical symbol of {element} is {symbol}.",
        "{symbol} is the chemical symbol of {element}.",
    ),
    "state": (
        "At room temperature, {element} is a {state}.",
        "The element {element} is a {state} under normal conditions.",
    ),
    "class": (
        "{animals} are {class}.",
        "Biologists count {animals} among the {class}.",
    ),
    "author": (
        "The author of {book} is {author}.",
        "{author} wrote {book}.",
    ),
    "opposite": (
        "The opposite of {word} is {opposite}.",
        "The word {word} means the opposite of {opposite}.",
    ),
}

#: The negations of these statements.
NEGATIONS = {
    "capital": (
        "The capital of {country} is not {capital}.",
        "{capital} is not the capital city of {country}.",
    ),
    "language": (
        "The main language of {country} is not {language}.",
        "Most people in {country} do not speak {language}.",
    ),
    "currency": (
        "The currency of {country} is not the {currency}.",
        "People in {country} do not pay with the {currency}.",
    ),
    "continent": (
        "{country} is not a country in {continent}.",
        "If you travel to {country}, you do not travel to {continent}.",
    ),
    "symbol": (
        "The chemical symbol of {element} is not {symbol}.",
        "{symbol} is not the chemical symbol of {element}.",
    ),
    "state": (
        "At room temperature, {element} is not a {state}.",
        "The element {element} is not a {state} under normal conditions.",
    ),
    "class": (
        "{animals} are not {class}.",
        "Biologists do not count {animals} among the {class}.",
    ),
    "author": (
        "The author of {book} is not {author}.",
        "{author} did not write {book}.",
    ),
    "opposite": (
        "The opposite of {word} is not {opposite}.",
        "The word {word} does not mean the opposite of {opposite}.",
    ),
}


def make_statements(*, negated: bool = False) -> pd.DataFrame:
    """Build the statements.

    Parameters
    ----------
    negated : bool, default=False
        Whether to deny each statement. Rows, relations and groups stay the same, and
        labels are reversed.

    Returns
    -------
    DataFrame
        One statement in each row, always in the same order. Columns: ``statement``;
        ``label``, 1 for true and 0 for false; ``relation``, such as ``"capital"``;
        ``group``, the number of the line that the statement comes from.

    Examples
    --------
    >>> make_statements().loc[[0, 2], ["statement", "label"]]
                             statement  label
    0  The capital of France is Paris.      1
    2  The capital of France is Tokyo.      0
    """
    return pd.DataFrame(
        [
            (statement, label, relation, group)
            for group, pair in enumerate(read_pairs())
            for relation, statement, label in state_pair(pair, negated=negated)
        ],
        columns=["statement", "label", "relation", "group"],
    )


def read_pairs() -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Read each line of the tables as two facts, which map columns to values."""
    for table in TABLES:
        header, *lines = table.strip().splitlines()
        columns = header.split(", ")
        for line in lines:
            one, other = (
                dict(zip(columns, fact.split(", "), strict=True))
                for fact in line.split(" <> ")
            )
            yield one, other


def state_pair(
    pair: tuple[dict[str, str], dict[str, str]], *, negated: bool = False
) -> Iterator[tuple[str, str, int]]:
    """Make true statements of two facts, and false ones by swapping their values.

    If ``negated``, each statement is denied. Yields the relation, the statement and its
    label.
    """
    templates = NEGATIONS if negated else TEMPLATES
    for relation in list(pair[0])[1:]:
        for template in templates[relation]:
            for is_own, lenders in ((True, pair), (False, pair[::-1])):
                for fact, lender in zip(pair, lenders, strict=True):
                    said = template.format_map({**fact, relation: lender[relation]})
                    yield relation, said[0].upper() + said[1:], int(is_own != negated)
